// Helpers for the document. Text is always set as text: the page's content security policy (Trusted Types) forbids
// turning text into markup.

export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

/** Creates an element with attributes and children (strings or elements). */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Shows a status message, which screen readers also read. `kind` is "good" or "bad". `card` selects the card that the
 *  message is about; it has to have a place for messages. Without one, the message is at the top of the page. Removes the
 *  message before. An empty text shows none. */
export function announce(text, { kind = 'good', card } = {}) {
  for (const place of $$('.notice')) place.textContent = '';
  const place = card ? $(`${card} [data-notice]`) : $('#announcement');
  place.className = `notice ${kind}`;
  place.textContent = text;
  if (text) place.scrollIntoView({ block: 'nearest' });
}

/** Moves the focus to the heading of a section just shown, where keyboard users and screen readers continue. */
export function focusHeading(section) {
  $('h2', section)?.focus();
}

export const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });
