// The second factor: an authenticator app (TOTP, RFC 6238).

import { account, inWords } from './api.js';
import { $, announce } from './dom.js';
import { clear, wire, wireButton } from './forms.js';
import { tried } from './progress.js';
import { drawing } from './qr.js';
import * as session from './session.js';

const state = () => $('[data-factor-state]');
const start = () => $('[data-action=totp-start]');
const off = () => $('[data-action=totp-off]');

export function wireFactor() {
  const wrong = $('[data-factor-error]');
  wireButton(start(), wrong, async () => {
    const { secret, otpauthUrl } = await account('POST', 'mfa/totp', { token: await session.freshToken() });
    $('[data-qr]').replaceChildren(drawing(otpauthUrl, 'QR code for your authenticator app'));
    $('[data-qr-name]').textContent = shownName(otpauthUrl);
    $('[data-secret]').textContent = secret.match(/.{1,4}/g).join(' ');
    start().hidden = true;
    $('[data-totp]').hidden = false;
    $('#totp-code').focus();
  });
  wire($('[data-totp] form'), async ({ code }) => {
    const token = await session.freshToken();
    await account('POST', 'mfa/totp/verify', { token, body: { code } });
    await account('PUT', 'mfa/preference', { token, body: { totp: { enabled: true, preferred: true } } });
    hideSecret();
    tried('totp');
    announce('The second factor is on. Log out and sign in again to use it.', { card: '#factor' });
    await lookUp();
    off().focus();
  });
  wireButton($('[data-action=totp-cancel]'), wrong, async () => {
    hideSecret();
    await lookUp();
    start().focus();
  });
  wireButton(off(), wrong, async () => {
    const token = await session.freshToken();
    await account('PUT', 'mfa/preference', { token, body: { totp: { enabled: false, preferred: false } } });
    announce('The second factor is off.', { card: '#factor' });
    await lookUp();
    start().focus();
  });
}

/** Fetches the profile, shows the state of the second factor and returns the profile; `null` if the request fails. */
export async function lookUp() {
  try {
    const me = await account('GET', 'me', { token: await session.freshToken() });
    const on = me.mfa?.enabled?.includes('SOFTWARE_TOKEN_MFA') ?? false;
    state().textContent = on
      ? 'On: signing in requires a code from your authenticator app.'
      : 'Off: a password is enough to sign in.';
    start().hidden = on;
    off().hidden = !on;
    return me;
  } catch (error) {
    state().textContent = `Unknown. ${inWords(error)}`;
    return null;
  }
}

/** Removes the second factor's state and key from the document. */
export function forget() {
  hideSecret();
  state().textContent = 'Loading …';
  $('[data-factor-error]').textContent = '';
  start().hidden = true;
  off().hidden = true;
}

/** The name that an authenticator app shows for the key: issuer and account. */
function shownName(otpauthUrl) {
  const [issuer, account] = new URL(otpauthUrl).pathname.split('/').at(-1).split(':').map(decodeURIComponent);
  return account ? `${issuer} (${account})` : issuer;
}

function hideSecret() {
  $('[data-totp]').hidden = true;
  $('[data-qr]').replaceChildren();
  $('[data-qr-name]').textContent = '';
  $('[data-secret]').textContent = '';
  clear($('[data-totp] form'));
}
