// The session of this page, in one of two modes.
//
// Tokens in memory: they are kept only in variables of this module, not in localStorage, sessionStorage, cookies or the
// document. Closing the tab ends the session.
//
// Cookies (`deploy/local/up --cookies`): the service keeps the tokens in cookies that no script can read, and the browser
// sends them by itself. This module knows only how long the access token lasts. The session survives a reload.

import { account, Refused } from './api.js';

/** `true` if sessions are in cookies. */
export const inCookies = document.documentElement.dataset.session === 'cookies';

let tokens = null; // { access, refresh }; both are undefined if the session is in cookies
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
  remember(how, answer);
}

/** Continues a session in cookies, for example after a reload. Returns `false` if there is none. */
export async function resume() {
  if (!inCookies) return false;
  try {
    begin(await account('POST', 'refresh', { body: {} }), 'continued');
    return true;
  } catch (error) {
    if (isOver(error)) return false;
    throw error;
  }
}

/** Discards the tokens and their history. */
export function forget() {
  tokens = null;
  history.length = 0;
}

export const isOpen = () => tokens !== null;
export const past = () => [...history];

/** Claims of the access token; empty if it is in a cookie. They describe the user, so the page may show them to that
 *  user. */
export function claims() {
  if (inCookies) return {};
  const [, payload] = tokens.access.split('.');
  const bytes = Uint8Array.from(atob(payload.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(bytes));
}

/** Seconds until the access token expires; negative afterwards. */
export const remaining = () => history.at(-1).expires - Date.now() / 1000;
export const lifetime = () => history.at(-1).expires - history.at(-1).issued;

/** The access token; `undefined` if it is in a cookie, which the browser sends by itself. */
export const accessToken = () => tokens.access;

/** As `accessToken`, after a refresh if the token has expired. For a call of the account API. */
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
  const used = tokens;
  let answer;
  try {
    answer = await account('POST', 'refresh', { body: { refreshToken: used.refresh } });
  } catch (error) {
    if (isOver(error) && tokens === used) {
      forget();
      ended('Your session has ended. Sign in again.');
    }
    throw error;
  }
  if (tokens !== used) return; // signed out in the meantime
  // Cognito returns a new refresh token only if rotation is enabled.
  tokens = { access: answer.accessToken, refresh: answer.refreshToken ?? used.refresh };
  remember(how, answer);
}

/** `true` if a refresh failed because there is no session: the refresh token is refused, or there is none in the cookies. */
const isOver = (error) => error instanceof Refused && (error.status === 401 || (inCookies && error.status === 400));

/** Revokes the tokens and discards them. Returns the access token, which is refused from now on; `undefined` if it was in a
 *  cookie. If the session began on the hosted page, also returns the URL that ends that page's session and then redirects
 *  to `logoutUri`. */
export async function signOut(logoutUri) {
  const token = await freshToken();
  const answer = await account('POST', 'logout', { token, body: { refreshToken: tokens.refresh, logoutUri } });
  forget();
  return { token, url: answer.hostedUiLogoutUrl };
}

function remember(how, { expiresIn }) {
  const now = Date.now() / 1000;
  const { iat = now, exp = now + expiresIn } = claims();
  history.push({ how, issued: iat, expires: exp });
  changed();
}
