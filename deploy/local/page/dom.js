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

/** Shows a status message, which screen readers also read. `kind` is "good" or "bad". */
export function announce(text, kind = 'good') {
  const region = $('#announcement');
  region.className = `notice ${kind}`;
  region.textContent = text;
}

/** Moves the focus to the heading of a section just shown, where keyboard users and screen readers continue. */
export function focusHeading(section) {
  $('h2', section)?.focus();
}

/** Ticks a step of "Things to try". */
export function tried(step) {
  const item = $(`#tried [data-step="${step}"]`);
  if (!item || item.dataset.done) return;
  item.dataset.done = 'yes';
  item.append(element('span', { class: 'away' }, ' (done)'));
}

/** The steps ticked so far. */
export const triedSoFar = () => $$('#tried [data-done]').map((item) => item.dataset.step);

export const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });
