// The view of a session: the token and its expiry, the protected route, the password, sign-out.

import { account, inWords } from './api.js';
import { call, clearResult } from './calls.js';
import { $, $$, announce, clock, element, focusHeading } from './dom.js';
import * as factor from './factor.js';
import { clear, wire, wireButton } from './forms.js';
import * as hosted from './hosted.js';
import * as passkeys from './passkeys.js';
import { tried } from './progress.js';
import * as session from './session.js';

// A token is refreshed when this share of its lifetime is left.
const EARLY = 1 / 4;
const NOT_AGAIN_FOR_MS = 10_000; // wait after a failed refresh

export const LOGGED_OUT =
  'You are logged out. Cognito has revoked the refresh token, and cognito-authz refuses your access tokens from now on.';

// After a sign-out, to show that it is refused.
let oldToken = null;

let retryAfter = 0;
let ticking = null;

/** `signedOut(message)` is called when the session is over. */
export function wireSignedIn(signedOut) {
  const wrong = $('[data-session-error]');
  session.listen({
    onChange: showTokens,
    onEnd: (message) => {
      close();
      signedOut(message, 'bad');
    },
  });
  wireButton($('[data-action=refresh]'), wrong, async () => {
    await session.refresh('refreshed');
    tried('refresh');
    announce('You have a new access token.', { card: '#session' });
  });
  wireButton($('[data-action=logout]'), wrong, async () => {
    const { url, token } = await session.signOut(hosted.home());
    close();
    tried('logout');
    if (url) {
      hosted.leaveToLogOut(url);
      return;
    }
    keep(token);
    signedOut(LOGGED_OUT);
  });
  wireButton($('[data-action=revoke]'), $('[data-revoke-error]'), async () => {
    const { token } = await session.signOut();
    close();
    tried('logout');
    keep(token);
    signedOut(LOGGED_OUT);
    await useOldToken();
    $('#ended').scrollIntoView();
    $('#ended-title').focus({ preventScroll: true });
  });
  wireButton($('[data-action=old-token]'), null, useOldToken);
  for (const button of $$('[data-call]')) {
    wireButton(button, null, () => callAs(button.dataset.call));
  }
  wire($('#password form'), async (values) => {
    await account('POST', 'change-password', { token: await session.freshToken(), body: values });
    clear($('#password form'));
    tried('password');
    announce('Your password is changed. The access tokens of your other sessions are refused from now on.', { card: '#password' });
  });
  factor.wireFactor();
}

/** Shows a session that has just started. */
export async function open() {
  oldToken = null;
  clearResult($('#ended'));
  $('#ended').hidden = true;
  $('#signed-out').hidden = true;
  $('#signed-in').hidden = false;
  clearResult($('#call'));
  clear($('#password form'));
  $('[data-session-error]').textContent = '';
  $('[data-who]').textContent = session.claims().username ?? '…';
  document.title = 'Signed in · cognito-authz';
  focusHeading($('#signed-in'));
  ticking ??= setInterval(tick, 250);
  tick();
  passkeys.lookUp();
  const me = await factor.lookUp();
  if (!me || !session.isOpen()) return;
  const name = me.attributes?.email ?? me.username;
  $('[data-who]').textContent = name;
  $('[data-username]').value = name;
}

async function callAs(how) {
  const anonymous = how === 'none';
  const token = anonymous ? null : how === 'tampered' ? session.tamperedToken() : session.accessToken();
  const path = how === 'group' ? '/admin' : '/orders';
  if (await call($('#call'), token, { path, forged: how === 'forged', anonymous }) === 'insufficient_group') tried('group');
}

/** Keeps the token of a session that was logged out, and shows the card that tries it. */
function keep(token) {
  oldToken = token;
  $('#ended').hidden = !token; // a page never had a token that was in a cookie
}

async function useOldToken() {
  if (await call($('#ended'), oldToken) === 'revoked') tried('revoked');
}

function close() {
  clearInterval(ticking);
  ticking = null;
  $('#signed-in').hidden = true;
  // Remove everything about the session from the document, except from the list of requests, which has no secrets.
  for (const place of ['[data-who]', '[data-tokens]', '[data-claims]']) {
    $(place).replaceChildren();
  }
  clearResult($('#call'));
  $('[data-username]').value = '';
  clear($('#password form'));
  factor.forget();
  passkeys.forget();
}

// -------------------------------------------------------------------------------------------- the token

function tick() {
  const left = session.remaining();
  const share = Math.max(0, left / session.lifetime());
  $('[data-progress]').value = share;
  $('#token').classList.toggle('low', share < EARLY);
  $('[data-token-word]').textContent = left > 0 ? 'Access token expires in' : 'Access token expired';
  const seconds = Math.abs(left > 0 ? Math.ceil(left) : Math.floor(left));
  const time = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
  $('[data-remaining]').textContent = left > 0 ? time : `${time} ago`;
  if (share < EARLY && $('[data-auto]').checked && Date.now() > retryAfter) {
    retryAfter = Date.now() + NOT_AGAIN_FOR_MS;
    session.refresh().then(() => {
      retryAfter = 0;
      tried('refresh'); // not announced: a screen reader would interrupt the user every few minutes
    }, (error) => {
      $('[data-session-error]').textContent = inWords(error);
    });
  }
}

function showTokens() {
  const past = session.past();
  $('[data-session-error]').textContent = '';
  $('[data-tokens]').replaceChildren(...past.map(({ how, issued, expires }, index) => {
    const current = index === past.length - 1;
    return element('tr', current ? { class: 'current' } : {},
      element('th', { scope: 'row' }, `${index + 1}, ${how}${current ? '' : ' (replaced)'}`),
      element('td', {}, clock(issued)), element('td', {}, clock(expires)));
  }).slice(-5).reverse());
  $('[data-claims]').replaceChildren(...Object.entries(session.claims()).flatMap(([name, value]) => [
    element('dt', {}, name),
    element('dd', {}, `${typeof value === 'object' ? JSON.stringify(value) : value}${
      ['iat', 'exp', 'auth_time'].includes(name) ? ` (${clock(value)})` : ''}`)]));
}
