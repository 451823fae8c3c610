// The tokens of the session. They are kept only in variables of this module: not in localStorage, sessionStorage,
// cookies or the document. Closing the tab ends the session.

import { account, Refused } from './api.js';

let tokens = null; // { access, refresh }
let refreshing = null; // promise of the refresh in progress: a rotating refresh token can be used only once
const history = []; // access tokens of this session: { how, issued, expires }, newest last

let changed = () => {};
let ended = () => {};

/** Sets callbacks: `onChange()` after every new token, `onEnd(message)` when the session ends without a sign-out. */
export function listen({ onChange, onEnd }) {
  changed = onChange;
  ended = onEnd;
}

/** Starts a session with the response of a sign-in. */
export function begin(answer, how) {
  history.length = 0;
  tokens = { access: answer.accessToken, refresh: answer.refreshToken };
  remember(how);
}

/** Discards the tokens and their history. */
export function forget() {
  tokens = null;
  history.length = 0;
}

export const isOpen = () => tokens !== null;
export const past = () => [...history];

/** Claims of the access token. They describe the user, so the page may show them to that user. */
export function claims() {
  const [, payload] = tokens.access.split('.');
  const bytes = Uint8Array.from(atob(payload.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(bytes));
}

/** Seconds until the access token expires; negative afterwards. */
export const remaining = () => history.at(-1).expires - Date.now() / 1000;
export const lifetime = () => history.at(-1).expires - history.at(-1).issued;

export const accessToken = () => tokens.access;

/** An access token that has not expired, for a call of the account API. Refreshes it if necessary. */
export async function freshToken() {
  if (remaining() <= 1) await refresh();
  return tokens.access;
}

/** The access token with one character in the middle of its signature changed. */
export function tamperedToken() {
  const [head, payload, signature] = tokens.access.split('.');
  const middle = signature.length >> 1;
  const other = signature[middle] === 'A' ? 'B' : 'A';
  return `${head}.${payload}.${signature.slice(0, middle)}${other}${signature.slice(middle + 1)}`;
}

/** Gets a new access token. Concurrent calls share one refresh. `how` is shown in the history. */
export function refresh(how = 'refreshed automatically') {
  refreshing ??= renew(how).finally(() => { refreshing = null; });
  return refreshing;
}

async function renew(how) {
  const used = tokens.refresh;
  let answer;
  try {
    answer = await account('POST', 'refresh', { body: { refreshToken: used } });
  } catch (error) {
    if (error instanceof Refused && error.status === 401 && tokens?.refresh === used) {
      forget();
      ended('Your session has ended. Sign in again.');
    }
    throw error;
  }
  if (tokens?.refresh !== used) return; // signed out in the meantime
  // Cognito returns a new refresh token only if rotation is enabled.
  tokens = { access: answer.accessToken, refresh: answer.refreshToken ?? used };
  remember(how);
}

/** Revokes the tokens and discards them. Returns the access token, which is refused from now on. If the session began
 *  on the hosted page, also returns the URL that ends that page's session and then redirects to `logoutUri`. */
export async function signOut(logoutUri) {
  const token = await freshToken();
  const answer = await account('POST', 'logout', { token, body: { refreshToken: tokens.refresh, logoutUri } });
  forget();
  return { token, url: answer.hostedUiLogoutUrl };
}

function remember(how) {
  const { iat, exp } = claims();
  history.push({ how, issued: iat, expires: exp });
  changed();
}
