// The tokens. They are variables of this module and of nothing else: not in localStorage, not in sessionStorage, not
// in a cookie, not in the document. With the tab they are gone, and so is the session.

import { account, Refused } from './api.js';

let tokens = null; // { access, refresh }
let refreshing = null; // the refresh that is under way: a token that rotates may be used once
const history = []; // of this session: { how, issued, expires }, the newest last

let changed = () => {};
let ended = () => {};

/** `onChange()` after every new token, `onEnd(message)` when the session is over without anybody having asked. */
export function listen({ onChange, onEnd }) {
  changed = onChange;
  ended = onEnd;
}

/** Begins with what a sign-in answered. */
export function begin(answer, how) {
  history.length = 0;
  tokens = { access: answer.accessToken, refresh: answer.refreshToken };
  remember(how);
}

/** Forgets everything. */
export function forget() {
  tokens = null;
  history.length = 0;
}

export const isOpen = () => tokens !== null;
export const past = () => [...history];

/** The claims of the access token: what it says, which is no secret to whom it is about. */
export function claims() {
  const [, payload] = tokens.access.split('.');
  const bytes = Uint8Array.from(atob(payload.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(bytes));
}

/** Seconds until the access token expires; negative afterwards. */
export const remaining = () => history.at(-1).expires - Date.now() / 1000;
export const lifetime = () => history.at(-1).expires - history.at(-1).issued;

export const accessToken = () => tokens.access;

/** An access token that still counts, for a call of the account API. */
export async function freshToken() {
  if (remaining() <= 1) await refresh();
  return tokens.access;
}

/** With another character in the middle of the signature. */
export function tamperedToken() {
  const [head, payload, signature] = tokens.access.split('.');
  const middle = signature.length >> 1;
  const other = signature[middle] === 'A' ? 'B' : 'A';
  return `${head}.${payload}.${signature.slice(0, middle)}${other}${signature.slice(middle + 1)}`;
}

/** Gets a new access token; one refresh at a time, whoever asks. `how` is for the history. */
export function refresh(how = 'refreshed by itself') {
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
  // Cognito sends a new refresh token only where they rotate.
  tokens = { access: answer.accessToken, refresh: answer.refreshToken ?? used };
  remember(how);
}

/** Tells Cognito, then forgets. The answer may name where the browser has to go to end the hosted page's session; it is
 *  to come back to `logoutUri`. */
export async function signOut(logoutUri) {
  const token = await freshToken();
  const answer = await account('POST', 'logout', { token, body: { refreshToken: tokens.refresh, logoutUri } });
  forget();
  return answer.hostedUiLogoutUrl;
}

function remember(how) {
  const { iat, exp } = claims();
  history.push({ how, issued: iat, expires: exp });
  changed();
}
