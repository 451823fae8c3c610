// The list of requests, newest first. api.js removes secrets before they get here.

import { $, element } from './dom.js';
import * as progress from './progress.js';

const MOST = 40;

/** Shows the requests of the tab so far, and wires the button that clears the list. */
export function wireRequests() {
  const list = $('#requests');
  list.replaceChildren(...progress.requests().map(entry).reverse());
  showWhetherEmpty();
  $('[data-action=clear-requests]').addEventListener('click', () => {
    progress.keepRequests([]);
    list.replaceChildren();
    showWhetherEmpty();
    $('#requests-title').focus();
  });
}

/** Adds a request to the list. */
export function add({ method, path, status, sent, headers, received, ms }) {
  // The query of a request can hold a code.
  const request = { method, path: path.split('?')[0], status, sent, headers, received, ms };
  progress.keepRequests([...progress.requests(), request].slice(-MOST));
  const list = $('#requests');
  list.prepend(entry(request));
  while (list.children.length > MOST) list.lastChild.remove();
  showWhetherEmpty();
}

function showWhetherEmpty() {
  const isEmpty = !$('#requests').children.length;
  $('[data-no-requests]').hidden = !isEmpty;
  $('[data-action=clear-requests]').hidden = isEmpty;
}

function entry({ method, path, status, sent, headers, received, ms }) {
  const good = status >= 200 && status < 300;
  const details = element('details', {}, element('summary', {},
    element('span', { class: `status ${good ? 'good' : 'bad'}` }, status ? String(status) : 'none'),
    element('span', { class: 'method' }, method), ' ',
    element('span', { class: 'path' }, path), ' ',
    element('span', { class: 'ms' }, status ? `${ms} ms` : '')));
  const parts = [['Headers', Object.entries(headers).map(([name, value]) => `${name}: ${value}`).join('\n')],
    ['Sent', text(sent)], ['Received', text(received)]];
  for (const [title, content] of parts) {
    if (content) {
      details.append(element('p', { class: 'part' }, title),
        element('pre', { tabindex: '0', 'aria-label': `${title}: ${method} ${path}` }, content));
    }
  }
  return element('li', {}, details);
}

const text = (value) => (value == null ? '' : typeof value === 'string' ? value : JSON.stringify(value, null, 2));
