// The views without a session: creating and verifying an account, signing in, second factor, forgotten password.

import { account, inWords, Refused } from './api.js';
import { $, $$, announce, focusHeading } from './dom.js';
import { clear, showFormError, wire, wireButton } from './forms.js';
import * as hosted from './hosted.js';
import * as mailbox from './mailbox.js';
import { tried } from './progress.js';

let email = ''; // address used in the following steps, so that users enter it once
let challenge = null; // { session, username } between the password and the code

/** Wires the forms. `signIn(answer, how)` is called with the response that has the tokens. */
export function wireSignedOut(signIn) {
  for (const button of $$('#signed-out [data-view]')) {
    button.addEventListener('click', () => {
      announce('');
      show(button.dataset.view);
    });
  }
  const form = (view) => $(`#${view} form`);

  wire(form('register'), async (values) => {
    await account('POST', 'register', { body: values });
    email = values.email;
    tried('register');
    announce('Your account is created. Your address has to be verified before you can sign in.');
    show('verify');
  });

  wire(form('verify'), async ({ code }) => {
    await account('POST', 'verify', { body: { email, code } });
    tried('verify');
    announce('Your address is verified. Sign in now.');
    show('login');
  });

  wireButton($('[data-action=resend]'), $('#verify [data-form-error]'), async () => {
    await account('POST', 'resend-code', { body: { email } });
    announce('A new code is in the mail.', { card: '#verify' });
    await openMailbox('verify');
  });

  wire(form('login'), async (values) => {
    email = values.email;
    try {
      const answer = await account('POST', 'login', { body: values });
      if (answer.challenge) ask(answer);
      else signIn(answer, 'signed in');
    } catch (error) {
      if (!(error instanceof Refused) || error.code !== 'user_not_confirmed') throw error;
      announce('The password is correct, but your address is not verified yet.', { kind: 'bad' });
      show('verify');
    }
  });

  wire(form('challenge'), async ({ code }) => {
    try {
      const answer = await account('POST', 'challenge', { body: {
        challenge: 'SOFTWARE_TOKEN_MFA', session: challenge.session, username: challenge.username,
        responses: { SOFTWARE_TOKEN_MFA_CODE: code } } });
      if (answer.challenge) return ask(answer);
      challenge = null;
      signIn(answer, 'signed in');
    } catch (error) {
      if (!(error instanceof Refused) || error.code !== 'invalid_session') throw error;
      announce(inWords(error), { kind: 'bad' });
      show('login');
    }
  });

  wire(form('forgot'), async (values) => {
    email = values.email;
    await account('POST', 'forgot-password', { body: values });
    announce('If there is an account with this address, a code was sent to it.');
    show('reset');
  });

  wire(form('reset'), async (values) => {
    await account('POST', 'reset-password', { body: { email, ...values } });
    announce('Your password is changed. Sign in with the new one.');
    show('login');
  });

  wireButton($('[data-action=hosted]'), $('[data-hosted-error]'), hosted.leaveToSignIn);
}

/** Shows one of the forms, reset except for the e-mail address. */
export function show(view, { focus = true } = {}) {
  $('#signed-in').hidden = true;
  $('#signed-out').hidden = false;
  for (const section of $$('#signed-out > .card')) {
    section.hidden = section.id !== view;
    clear($('form', section));
  }
  const section = $(`#${view}`);
  for (const button of $$('.choices [data-view]')) {
    if (button.dataset.view === view) button.setAttribute('aria-current', 'true');
    else button.removeAttribute('aria-current');
  }
  for (const place of $$('[data-email]', section)) place.textContent = email;
  const address = $('input[name=email]', section);
  if (address && view !== 'register') address.value = email;
  document.title = `${$('h2', section).textContent} · cognito-authz`;
  if (focus) focusHeading(section);
  if (view === 'verify' || view === 'reset') openMailbox(view);
}

/** Handles a challenge, which the account API sends before it returns tokens. */
function ask({ challenge: name, session, parameters }) {
  if (name !== 'SOFTWARE_TOKEN_MFA') {
    showFormError($('#login form'), `Cognito requires the challenge ${name}, which this page does not support.`);
    return;
  }
  challenge = { session, username: parameters?.USER_ID_FOR_SRP ?? email };
  show('challenge');
}

const openMailbox = (view) => mailbox.open($(`#${view}`), email, $(`#${view} [name=code]`));
