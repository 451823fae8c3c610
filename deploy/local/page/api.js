// Requests to the account API and to the application, as any browser makes them: to the origin of this page, which
// is Envoy. Every one of them is told to `onRequest`, with everything secret taken out first.

/** A request that was not granted. `code` is the account API's, `reason` the check's; both may be missing. */
export class Refused extends Error {
  constructor({ status, body, retryAfter }) {
    super(body?.message ?? `Status ${status}`);
    this.status = status;
    this.code = body?.code;
    this.retryAfter = retryAfter;
  }
}

/** No answer at all. */
export class Unreachable extends Error {}

let listener = () => {};
export function onRequest(tell) {
  listener = tell;
}

/** One request, whatever its answer is. */
export async function ask(method, path, { body, token, headers = {} } = {}) {
  const sent = { ...headers };
  if (body) sent['content-type'] = 'application/json';
  if (token) sent.authorization = `Bearer ${token}`;
  const since = performance.now();
  let response, text;
  try {
    response = await fetch(path, {
      method, headers: sent, body: body && JSON.stringify(body), cache: 'no-store', redirect: 'error',
      signal: AbortSignal.timeout(20_000),
    });
    text = await response.text();
  } catch {
    listener({ method, path, status: 0, sent: redacted(body), headers: redactedHeaders(sent), received: null, ms: 0 });
    throw new Unreachable();
  }
  const answer = { status: response.status, ok: response.ok, body: parsed(text), headers: response.headers,
    retryAfter: Number(response.headers.get('retry-after')) || null };
  listener({ method, path, status: answer.status, sent: redacted(body), headers: redactedHeaders(sent),
    received: redacted(answer.body), ms: Math.round(performance.now() - since) });
  return answer;
}

/** One request to the account API; what is not a success is thrown. */
export async function account(method, route, options) {
  const answer = await ask(method, `/auth/${route}`, options);
  if (!answer.ok) throw new Refused(answer);
  return answer.body ?? {};
}

/** What to tell a person about a failure: what happened, and what to do. */
export function inWords(error) {
  if (error instanceof Unreachable) return 'There is no answer. Is deploy/local/up still running?';
  if (!(error instanceof Refused)) {
    console.error(error);
    return 'This page has made a mistake. The browser’s console says more.';
  }
  if (error.status === 429) {
    const seconds = error.retryAfter ?? 60;
    return `Too many attempts. Try again in ${seconds} second${seconds === 1 ? '' : 's'}.`;
  }
  return WORDS[error.code] ?? `${error.message.replace(/\.?$/, '.')}`;
}

// By code, which applications may rely on. Where there is no entry, the service's own message is good enough: the
// password policy above all, which is Cognito's text.
const WORDS = {
  invalid_credentials: 'The address or the password is wrong.',
  user_not_confirmed: 'This address is not verified yet.',
  password_reset_required: 'This account needs a new password: use “Forgot password”.',
  username_exists: 'There is an account with this address already. Sign in, or use another one.',
  invalid_code: 'This code is wrong or too old. Look for the newest one.',
  invalid_session: 'That took too long. Sign in again.',
  invalid_token: 'Your session has ended. Sign in again.',
  not_found: 'This stack does not offer that.',
  upstream_unavailable: 'Cognito does not answer at the moment. Try again in a few seconds.',
  upstream_error: 'Cognito refused for a reason that only its operator can change. The service’s log says which.',
};

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text ? text.slice(0, 500) : null;
  }
}

// Members that nobody needs to see in a list of requests. All of `responses`: answers to challenges.
const SECRET = new Set(['password', 'oldPassword', 'newPassword', 'code', 'accessToken', 'idToken', 'refreshToken',
  'session', 'responses', 'secret', 'otpauthUrl', 'codeVerifier', 'state', 'url']);
const TOKEN = /\beyJ[\w-]+\.[\w-]+\.[\w-]+/g;
const HIDDEN = '•••';

function redacted(value, name) {
  if (SECRET.has(name) && value != null && !isErrorCode(name, value)) return HIDDEN;
  if (typeof value === 'string') return value.replace(TOKEN, HIDDEN);
  if (Array.isArray(value)) return value.map((item) => redacted(item));
  if (value && typeof value === 'object') {
    return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, redacted(member, key)]));
  }
  return value ?? null;
}

// `code` is a secret in a request, and the name of an error in an answer.
const isErrorCode = (name, value) => name === 'code' && /^[a-z]+(_[a-z0-9]+)+$/.test(value);

const redactedHeaders = (headers) =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => name !== 'content-type')
    .map(([name, value]) => [name, name === 'authorization' ? `Bearer ${HIDDEN}` : value]));
