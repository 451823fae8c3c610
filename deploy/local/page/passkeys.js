// Passkeys (WebAuthn): adding, listing and deleting them, and signing in with one.

import { account, inWords, Refused } from './api.js';
import { $, announce, element } from './dom.js';
import { wireButton } from './forms.js';
import { tried } from './progress.js';
import * as session from './session.js';

const state = () => $('[data-passkeys-state]');
const list = () => $('[data-passkeys]');
const add = () => $('[data-action=passkey-add]');
const signInButton = () => $('[data-action=passkey]');

// Returns nodes that say why there are no passkeys here: new ones for each place. `null` if there are passkeys.
let obstacle = () => ['Loading …'];

/** Wires the buttons. `signIn(answer, how)` is called with the response that has the tokens. */
export async function wirePasskeys(signIn) {
  const wrong = $('[data-passkeys-error]');
  wireButton(add(), null, () => explained(wrong, async () => {
    const token = await session.freshToken();
    await register(token);
    announce('The passkey is added. Log out and sign in with it.', { card: '#passkeys' });
    await lookUp();
  }));
  wireButton(signInButton(), null, () => explained($('[data-passkey-error]'), async () => {
    const input = $('#login-email');
    const email = input.value.trim();
    if (!email || !input.validity.valid) {
      input.focus();
      throw new Explained('Enter your e-mail address above first.');
    }
    const answer = await signInWith(email);
    tried('passkey');
    signIn(answer, 'signed in with a passkey');
  }));
  obstacle = await findObstacle();
  signInButton().hidden = obstacle !== null;
  $('[data-passkey-note]').replaceChildren(...obstacle?.() ?? []);
  $('#tried [data-step=passkey]').hidden = obstacle !== null;
  if (session.isOpen()) await lookUp();
}

/** Asks the browser for a new passkey and sends it to Cognito. */
async function register(token) {
  const options = await account('POST', 'webauthn/registration', { token });
  const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options);
  const credential = await navigator.credentials.create({ publicKey });
  await account('PUT', 'webauthn/registration', { token, body: { credential } });
}

/** Signs in and returns the response with the tokens. */
async function signInWith(email) {
  const login = await account('POST', 'login', {
    body: { email, authFlow: 'USER_AUTH', authParameters: { PREFERRED_CHALLENGE: 'WEB_AUTHN' } } });
  if (login.challenge !== 'WEB_AUTHN') throw new Explained('There is no passkey for this address. Use the password.');
  const options = JSON.parse(login.parameters.CREDENTIAL_REQUEST_OPTIONS);
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options);
  const credential = await navigator.credentials.get({ publicKey });
  return account('POST', 'challenge', { body: {
    challenge: 'WEB_AUTHN', session: login.session, email, responses: { CREDENTIAL: JSON.stringify(credential) } } });
}

/** Shows the user's passkeys. */
export async function lookUp() {
  add().hidden = true;
  if (obstacle) {
    state().replaceChildren(...obstacle());
    return;
  }
  try {
    const found = await fetchAll();
    state().textContent = found.length ? 'Each of these signs you in without the password.' : 'You have none yet.';
    add().hidden = false;
    list().hidden = !found.length;
    $('tbody', list()).replaceChildren(...found.map(row));
  } catch (error) {
    state().textContent = error instanceof Refused && error.code === 'passkeys_disabled'
      ? 'The user pool does not allow passkeys.' : `Unknown. ${inWords(error)}`;
  }
}

/** Removes the passkeys from the document. */
export function forget() {
  state().textContent = 'Loading …';
  $('[data-passkeys-error]').textContent = '';
  $('tbody', list()).replaceChildren();
  list().hidden = true;
  add().hidden = true;
}

async function fetchAll() {
  const found = [];
  let next = null;
  do {
    const query = next === null ? '' : `?${new URLSearchParams({ next })}`;
    const page = await account('GET', `webauthn/credentials${query}`, { token: await session.freshToken() });
    found.push(...page.credentials);
    next = page.next ?? null;
  } while (next !== null);
  return found;
}

function row({ credentialId, friendlyName, createdAt }) {
  const name = friendlyName ?? credentialId.slice(0, 8);
  const button = element('button', { type: 'button', 'aria-label': `Delete ${name}` }, 'Delete');
  wireButton(button, null, () => explained($('[data-passkeys-error]'), async () => {
    await account('DELETE', `webauthn/credentials/${encodeURIComponent(credentialId)}`,
      { token: await session.freshToken() });
    announce(`${name} is deleted.`, { card: '#passkeys' });
    await lookUp();
    $('#passkeys-title').focus();
  }));
  const added = createdAt === null ? '' : new Date(createdAt).toLocaleString([], { hour12: false });
  return element('tr', {},
    element('th', { scope: 'row' }, name), element('td', {}, added), element('td', {}, button));
}

// ------------------------------------------------------------------------------------------- messages

/** A message for the user. */
class Explained extends Error {}

async function explained(place, act) {
  place.textContent = '';
  try {
    await act();
  } catch (error) {
    place.textContent = words(error);
  }
}

function words(error) {
  if (error instanceof Explained) return error.message;
  if (error instanceof Refused && error.code === 'invalid_credentials') return 'This passkey was not accepted.';
  if (!(error instanceof DOMException)) return inWords(error);
  if (error.name === 'InvalidStateError') return 'This device already has a passkey for your account.';
  return error.name === 'NotAllowedError'
    ? 'No passkey was used: the browser’s question was closed or timed out, or this device has no passkey for the account.'
    : `The browser does not allow passkeys here (${error.name}).`;
}

async function findObstacle() {
  // A file of the page, and no request to an API that the list of requests would show.
  const { passkeys } = await (await fetch('/page/passkeys.json')).json();
  if (!passkeys) {
    return () => ['The emulator has no passkeys. Start the stack with ', element('code', {}, 'deploy/local/up --passkeys'),
      ' to try them.'];
  }
  if (/^[\d.]+$|:/.test(location.hostname)) {
    const home = `http://localhost${location.port && `:${location.port}`}/`;
    return () => ['Passkeys belong to a host name, not to an address: open ', element('a', { href: home }, home), '.'];
  }
  return globalThis.PublicKeyCredential?.parseCreationOptionsFromJSON ? null : () => ['This browser has no passkeys.'];
}
