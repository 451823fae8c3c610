// The mailbox: the emulator keeps the mails that Cognito would send, and the local stack serves them. It is not part of
// cognito-authz and does not exist in production.

import { $, element } from './dom.js';

/** Shows the newest mail to `email` in the section, with a button that copies its code to `input`. */
export function open(section, email, input) {
  const place = $('[data-mailbox]', section);
  const content = element('div', { 'aria-live': 'polite', class: 'letter' });
  const again = element('button', { type: 'button' }, 'Check again');
  place.replaceChildren(element('section', { class: 'mailbox', 'aria-label': 'Mailbox' },
    element('p', { class: 'mail-title' }, 'Your mailbox, in the emulator'), content));
  const look = async () => {
    again.disabled = true;
    try {
      content.replaceChildren(...letter(await newest(email), input, again));
    } catch {
      content.replaceChildren('The mailbox is not responding. Is deploy/local/up still running?', again);
    } finally {
      again.disabled = false;
    }
  };
  again.addEventListener('click', look);
  return look();
}

async function newest(email) {
  const response = await fetch(`/mailbox?to=${encodeURIComponent(email)}`, { cache: 'no-store' });
  if (!response.ok) throw new Error(`status ${response.status}`);
  return (await response.json()).messages[0];
}

function letter(mail, input, again) {
  if (!mail) return [element('p', {}, 'No mail yet.'), again];
  const code = mail.text.match(/\b\d{6}\b/)?.[0];
  const actions = element('div', { class: 'actions' });
  if (code) {
    const use = element('button', { type: 'button', 'data-action': 'use-code' }, 'Use this code');
    use.addEventListener('click', () => {
      input.value = code;
      input.dispatchEvent(new Event('input', { bubbles: true }));
      input.focus();
    });
    actions.append(use);
  }
  actions.append(again);
  return [element('p', { class: 'mail' }, element('strong', {}, mail.subject), element('br'), mail.text), actions];
}
