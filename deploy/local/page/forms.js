// Forms: error messages appear beside the field concerned, and buttons are disabled while a request runs.

import { inWords, Refused } from './api.js';
import { $, $$, announce, element } from './dom.js';

// Fields that an error code refers to. The first one that the form has gets the message.
const FIELD_OF = {
  username_exists: ['email'],
  invalid_password: ['newPassword', 'password'],
  invalid_code: ['code'],
  invalid_credentials: ['oldPassword'],
};

/** Calls `submit(values)` when the form is submitted with valid values, and shows the error that it throws. */
export function wire(form, submit) {
  for (const input of $$('input[type=password]', form)) addReveal(input);
  form.addEventListener('input', ({ target }) => showFieldError(target, ''));
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    showFormError(form, '');
    const wrong = fields(form).filter((input) => !check(input));
    if (wrong.length) {
      wrong[0].focus();
      return;
    }
    const values = Object.fromEntries(fields(form).map((input) => [input.name, input.value]));
    try {
      await busy(form, () => submit(values));
    } catch (error) {
      showError(form, error);
    }
  });
}

/** Runs `act` on a click, with the buttons of the section disabled, and shows the error that it throws in `place`. */
export function wireButton(button, place, act) {
  button.addEventListener('click', async () => {
    if (place) place.textContent = '';
    try {
      await busy(button.closest('section, form'), act);
    } catch (error) {
      if (place) place.textContent = inWords(error);
    }
  });
}

/** Resets the fields, removes their error messages and hides passwords. Read-only fields are not touched. */
export function clear(form) {
  form.reset();
  showFormError(form, '');
  for (const input of fields(form)) showFieldError(input, '');
  for (const button of $$('.reveal[aria-pressed=true]', form)) button.click();
}

const fields = (form) => $$('input', form).filter((input) => input.name && !input.readOnly);

async function busy(root, act) {
  announce(''); // the last message is about something else
  const buttons = $$('button', root).filter((button) => !button.disabled);
  const focused = document.activeElement;
  root.setAttribute('aria-busy', 'true');
  for (const button of buttons) button.disabled = true;
  try {
    return await act();
  } finally {
    root.removeAttribute('aria-busy');
    for (const button of buttons) button.disabled = false;
    // A disabled button loses the focus. It gets the focus back unless another element has it by now.
    if (document.activeElement === document.body && focused?.checkVisibility()) focused.focus();
  }
}

function check(input) {
  // Trim spaces around an address or a code, which come from copying. A password is not changed.
  if (input.type !== 'password') input.value = input.value.trim();
  const { valid, valueMissing } = input.validity;
  showFieldError(input, valid ? '' : valueMissing ? input.dataset.missing : input.dataset.wrong);
  return valid;
}

function showError(form, error) {
  const names = error instanceof Refused ? FIELD_OF[error.code] ?? [] : [];
  const input = names.map((name) => form.elements[name]).find(Boolean);
  if (input) {
    showFieldError(input, error.code === 'invalid_credentials' ? 'This is not your current password.' : inWords(error));
    input.focus();
  } else {
    showFormError(form, inWords(error));
  }
}

export function showFormError(form, text) {
  $('[data-form-error]', form).textContent = text;
}

function showFieldError(input, text) {
  const id = `${input.id}-error`;
  let place = document.getElementById(id);
  if (!text && !place) return;
  if (!place) {
    place = element('p', { class: 'error', id, 'aria-live': 'polite' });
    input.closest('.field').append(place);
    input.setAttribute('aria-describedby', [input.getAttribute('aria-describedby'), id].filter(Boolean).join(' '));
  }
  place.textContent = text;
  if (text) input.setAttribute('aria-invalid', 'true');
  else input.removeAttribute('aria-invalid');
}

/** Adds a button that shows or hides the password. */
function addReveal(input) {
  const button = element('button', { type: 'button', class: 'reveal', 'aria-pressed': 'false',
    'aria-label': 'Show password', 'aria-controls': input.id }, 'Show');
  const box = element('div', { class: 'with-reveal' });
  input.replaceWith(box);
  box.append(input, button);
  button.addEventListener('click', () => {
    const shown = input.type === 'password';
    input.type = shown ? 'text' : 'password';
    button.setAttribute('aria-pressed', String(shown));
  });
}
