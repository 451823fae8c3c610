// Sign-in on Cognito's hosted page: OAuth 2.0 with PKCE (RFC 7636). The service creates `state` and the code verifier.
// The browser leaves this page, returns with a code, and the service exchanges the code for tokens.

import { account } from './api.js';

// In sessionStorage, because `state` and the verifier must survive leaving the page. Without the code they are useless. The
// page removes them as soon as it is loaded again, and closing the tab removes them too. Tokens are never stored.
const PENDING = 'hosted-page';

/** Redirect URI of the hosted page: the URL of this page, exactly as the app client lists it. */
export const home = () => `${location.origin}/`;

function leave(url, pending) {
  sessionStorage.setItem(PENDING, JSON.stringify(pending));
  location.assign(url);
}

/** Goes to the hosted page to sign in. */
export async function leaveToSignIn() {
  const query = new URLSearchParams({ redirectUri: home() });
  const { url, state, codeVerifier } = await account('GET', `oauth/authorize-url?${query}`);
  leave(url, { state, codeVerifier });
}

/** Goes to `url` to end the session of the hosted page as well. Its cookie would let the next sign-in pass without a
 *  password. */
export function leaveToLogOut(url) {
  leave(url, { loggedOut: true });
}

/** Result of a redirect from the hosted page, or `null`. Removes the code from the address bar at once. */
export function returned() {
  const pending = JSON.parse(sessionStorage.getItem(PENDING) ?? 'null');
  sessionStorage.removeItem(PENDING);
  if (pending?.loggedOut) return { loggedOut: true };
  const query = new URLSearchParams(location.search);
  if (!query.has('code') && !query.has('error')) return null;
  window.history.replaceState(null, '', location.pathname);
  return { pending, code: query.get('code'), state: query.get('state') };
}

/** Exchanges the code for tokens; returns the same response as a sign-in. */
export async function finish({ pending, code, state }) {
  // With an attacker's code, the user would be signed in to the attacker's account (RFC 6749, section 10.12).
  if (!code || !pending || state !== pending.state) throw new NotOurs();
  return account('POST', 'oauth/token', {
    body: { code, codeVerifier: pending.codeVerifier, redirectUri: home(), state },
  });
}

/** The redirect does not belong to a sign-in that began in this tab. */
export class NotOurs extends Error {}
