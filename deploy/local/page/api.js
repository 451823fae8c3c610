// Requests to the account API and to the application. All go to the origin of this page, which is Envoy. The listener
// set with `onRequest` is called for each of them, with secrets removed.

/** An error response of the account API. `code` is its error code and `requestId` the id of the request in the logs, if it
 *  has them. */
export class Refused extends Error {
  constructor({ status, body, retryAfter }) {
    super(body?.message ?? `Status ${status}`);
    this.status = status;
    this.code = body?.code;
    this.requestId = body?.request_id;
    this.retryAfter = retryAfter;
  }
}

/** The request failed without a response. */
export class Unreachable extends Error {}

let listener = () => {};
export function onRequest(callback) {
  listener = callback;
}

/** Sends a request and returns the response, whatever its status. Throws `Unreachable` if there is none. The browser adds
 *  the cookies of this origin, unless the request is `anonymous`. */
export async function ask(method, path, { body, token, headers = {}, anonymous = false } = {}) {
  const sent = { ...headers };
  if (body) sent['content-type'] = 'application/json';
  if (token) sent.authorization = `Bearer ${token}`;
  const since = performance.now();
  let response, text;
  try {
    response = await fetch(path, {
      method, headers: sent, body: body && JSON.stringify(body), cache: 'no-store', redirect: 'error',
      credentials: anonymous ? 'omit' : 'same-origin', signal: AbortSignal.timeout(20_000),
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

/** Sends a request to the account API and returns the body. Throws `Refused` unless it succeeds. */
export async function account(method, route, options) {
  const answer = await ask(method, `/auth/${route}`, options);
  if (!answer.ok) throw new Refused(answer);
  return answer.body ?? {};
}

/** A message for the user: what went wrong and what to do. */
export function inWords(error) {
  if (error instanceof Unreachable) return 'There is no response. Is deploy/local/up still running?';
  if (!(error instanceof Refused)) {
    console.error(error);
    return 'This page has a bug. See the browser’s console.';
  }
  if (error.status === 429) {
    const seconds = error.retryAfter ?? 60;
    return `Too many attempts. Try again in ${seconds} second${seconds === 1 ? '' : 's'}.`;
  }
  const words = WORDS[error.code] ?? `${error.message.replace(/\.?$/, '.')}`;
  // Only the log says more.
  return error.status === 502 && error.requestId ? `${words} Request: ${error.requestId}` : words;
}

// Messages by error code; the codes are stable. For other codes the service's own message is shown. That matters most
// for the password policy, which only Cognito's text describes.
const WORDS = {
  invalid_credentials: 'The address or the password is wrong.',
  user_not_confirmed: 'This address is not verified yet.',
  password_reset_required: 'This account needs a new password: use “Forgot password”.',
  username_exists: 'There is an account with this address already. Sign in, or use another one.',
  invalid_code: 'This code is wrong or too old. Look for the newest one.',
  invalid_session: 'The sign-in took too long. Sign in again.',
  invalid_token: 'Your session has ended. Sign in again.',
  not_found: 'This operation is not available here.',
  upstream_unavailable: 'Cognito is not responding. Try again in a few seconds.',
  upstream_error: 'Cognito rejected the request, and only an operator can fix that. See the log of cognito-authz.',
};

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text ? text.slice(0, 500) : null;
  }
}

// Members that the list of requests hides. `responses` holds the answers to challenges and is hidden as a whole.
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

// `code` is a secret in a request and the name of an error in a response.
const isErrorCode = (name, value) => name === 'code' && /^[a-z]+(_[a-z0-9]+)+$/.test(value);

const redactedHeaders = (headers) =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => name !== 'content-type')
    .map(([name, value]) => [name, name === 'authorization' ? `Bearer ${HIDDEN}` : value]));
