// Calls of the protected route, and the card that shows what came of one.

import { ask, inWords } from './api.js';
import { $, element, tried } from './dom.js';

const FORGED = { 'x-auth-sub': 'root', 'x-auth-groups': 'admins' };

/** Calls the route and shows the result in the card. Returns the reason of a refusal. The request has `token`, if there
 *  is one, or else the session in cookies, unless it is `anonymous`. */
export async function call(card, token, { forged = false, anonymous = false } = {}) {
  let answer;
  try {
    answer = await ask('GET', '/orders', { token, anonymous, headers: forged ? FORGED : {} });
  } catch (error) {
    show(card, 'bad', inWords(error));
    return null;
  }
  if (answer.ok) {
    tried('call');
    const told = answer.body.headers.filter(([name]) => /^x[-_.]auth[-_.]/i.test(name));
    const names = Object.entries(FORGED).map(([name, value]) => `${name}: ${value}`).join(' and ');
    show(card, 'good', forged
      ? `${answer.status}: the application was reached. The forged ${names} never arrived; only the real headers did.`
      : `${answer.status}: the application was reached.`, { told });
    return null;
  }
  tried('refused');
  show(card, 'bad', `${answer.status}: refused. The application never saw the request.`, { refusal: [
    ['reason', answer.body?.reason], ['message', answer.body?.message],
    ['WWW-Authenticate', answer.headers.get('www-authenticate')], ['request id', answer.body?.request_id]] });
  return answer.body?.reason ?? null;
}

/** Empties the result. */
export const clearResult = (card) => show(card, '', '');

function show(card, kind, verdict, { told = [], refusal = [] } = {}) {
  $('[data-result]', card).className = `result ${kind}`;
  $('[data-verdict]', card).textContent = verdict;
  const headers = $('[data-headers]', card);
  headers.hidden = !told.length;
  $('tbody', headers).replaceChildren(...told.map(([name, value]) =>
    element('tr', {}, element('th', { scope: 'row' }, name), element('td', {}, value))));
  const list = $('[data-refusal]', card);
  list.hidden = !refusal.length;
  list.replaceChildren(...refusal.filter(([, value]) => value).flatMap(([name, value]) =>
    [element('dt', {}, name), element('dd', {}, value)]));
}
