// The list of requests, newest first. api.js removes secrets before they get here.

import { $, element } from './dom.js';

const MOST = 40;

export function show({ method, path, status, sent, headers, received, ms }) {
  $('[data-no-requests]').hidden = true;
  const list = $('#requests');
  const good = status >= 200 && status < 300;
  const details = element('details', {}, element('summary', {},
    element('span', { class: `status ${good ? 'good' : 'bad'}` }, status ? String(status) : 'none'),
    element('span', { class: 'method' }, method), ' ',
    element('span', { class: 'path' }, path.split('?')[0]), ' ',
    element('span', { class: 'ms' }, status ? `${ms} ms` : '')));
  const parts = [['Headers', Object.entries(headers).map(([name, value]) => `${name}: ${value}`).join('\n')],
    ['Sent', text(sent)], ['Received', text(received)]];
  for (const [title, content] of parts) {
    if (content) {
      details.append(element('p', { class: 'part' }, title),
        element('pre', { tabindex: '0', 'aria-label': `${title}: ${method} ${path.split('?')[0]}` }, content));
    }
  }
  list.prepend(element('li', {}, details));
  while (list.children.length > MOST) list.lastChild.remove();
}

const text = (value) => (value == null ? '' : typeof value === 'string' ? value : JSON.stringify(value, null, 2));
