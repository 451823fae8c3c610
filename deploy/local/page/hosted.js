// Signing in on Cognito's hosted page: OAuth 2.0 with PKCE (RFC 7636). The service makes `state` and the code verifier;
// the page goes away, comes back with a code, and has the service exchange it for tokens.

import { account } from './api.js';
import { tried, triedSoFar } from './dom.js';

// The one thing that is stored: `state` and the verifier have to survive that the page goes away. They are useless
// without the code, are taken out again by the first thing that the page does when it is back, and are gone with the
// tab at the latest. No token is ever stored. (`tried` is which steps are ticked.)
const PENDING = 'hosted-page';

/** Where the hosted page sends people back to: this page, as it is listed with the app client. */
export const home = () => `${location.origin}/`;

function leave(url, pending) {
  sessionStorage.setItem(PENDING, JSON.stringify({ ...pending, tried: triedSoFar() }));
  location.assign(url);
}

/** Leaves the page, to sign in. */
export async function leaveToSignIn() {
  const query = new URLSearchParams({ redirectUri: home() });
  const { url, state, codeVerifier } = await account('GET', `oauth/authorize-url?${query}`);
  leave(url, { state, codeVerifier });
}

/** Leaves the page, to end the session of the hosted page as well: a cookie there, with which the next sign-in would
 *  go through unasked. */
export function leaveToLogOut(url) {
  leave(url, { loggedOut: true });
}

/** What the page was sent back with, if it was; a code is taken out of the address at once. */
export function returned() {
  const pending = JSON.parse(sessionStorage.getItem(PENDING) ?? 'null');
  sessionStorage.removeItem(PENDING);
  pending?.tried.forEach(tried);
  if (pending?.loggedOut) return { loggedOut: true };
  const query = new URLSearchParams(location.search);
  if (!query.has('code') && !query.has('error')) return null;
  window.history.replaceState(null, '', location.pathname);
  return { pending, code: query.get('code'), state: query.get('state') };
}

/** Exchanges the code: what a sign-in answers. */
export async function finish({ pending, code, state }) {
  // Somebody else's code, slipped into this browser, would sign its user in as somebody else (RFC 6749, 10.12).
  if (!code || !pending || state !== pending.state) throw new NotOurs();
  return account('POST', 'oauth/token', {
    body: { code, codeVerifier: pending.codeVerifier, redirectUri: home(), state },
  });
}

/** What came back does not belong to a sign-in that began in this tab. */
export class NotOurs extends Error {}
