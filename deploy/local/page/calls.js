// Calls of protected routes, and the card that shows what came of one.

import { ask, inWords } from './api.js';
import { $, element } from './dom.js';
import { tried } from './progress.js';

const FORGED = { 'x-auth-sub': 'root', 'x-auth-groups': 'admins' };

// One sentence for each reason that this page can cause.
const WHY = {
  missing_credential: 'The request names no user: it has no access token and no session.',
  bad_signature: 'One character of the signature was changed, so it no longer fits the token.',
  expired: 'The token was valid until the time in its claim exp. Refresh it, and the same call succeeds.',
  insufficient_group: 'The session is valid, but you are not in the group admins, which the policy of /admin requires.',
  revoked: 'The token is signed correctly and has not expired, but you have logged out since it was issued.',
};

/** Calls a protected route and shows the result in the card. Returns the reason of a refusal. The request has `token`, if
 *  there is one, or else the session in cookies, unless it is `anonymous`. */
export async function call(card, token, { path = '/orders', forged = false, anonymous = false } = {}) {
  let answer;
  try {
    answer = await ask('GET', path, { token, anonymous, headers: forged ? FORGED : {} });
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
  const reason = answer.body?.reason ?? null;
  show(card, 'bad', `${answer.status}: refused. The application never saw the request.`, { why: WHY[reason], refusal: [
    ['reason', reason], ['message', answer.body?.message],
    ['WWW-Authenticate', answer.headers.get('www-authenticate')], ['request id', answer.body?.request_id]] });
  return reason;
}

/** Empties the result. */
export const clearResult = (card) => show(card, '', '');

function show(card, kind, verdict, { why = '', told = [], refusal = [] } = {}) {
  $('[data-result]', card).className = `result ${kind}`;
  $('[data-verdict]', card).textContent = verdict;
  $('[data-why]', card).textContent = why;
  const headers = $('[data-headers]', card);
  headers.hidden = !told.length;
  $('tbody', headers).replaceChildren(...told.map(([name, value]) =>
    element('tr', {}, element('th', { scope: 'row' }, name), element('td', {}, value))));
  const list = $('[data-refusal]', card);
  list.hidden = !refusal.length;
  list.replaceChildren(...refusal.filter(([, value]) => value).flatMap(([name, value]) =>
    [element('dt', {}, name), element('dd', {}, value)]));
}
