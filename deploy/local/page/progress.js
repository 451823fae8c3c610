// What the tab remembers of a visit: the ticked steps of "Things to try" and the list of requests. It is in sessionStorage,
// so it survives a reload, the hosted page and logging out, and is gone when the tab is closed. Tokens, codes and passwords
// never get here: api.js removes them from the requests.

import { $, $$, element } from './dom.js';

const KEY = 'progress';

/** Ticks a step of "Things to try". */
export function tried(step) {
  if (tick(step)) save();
}

const kept = { tried: [], requests: [] };

/** The requests so far, newest last. */
export const requests = () => kept.requests;

/** Replaces the requests. */
export function keepRequests(list) {
  kept.requests = list;
  save();
}

/** Reads what the tab remembers, and ticks the steps. */
export function restore() {
  let stored;
  try {
    stored = JSON.parse(sessionStorage.getItem(KEY));
  } catch {
    return; // the browser allows no storage, or the content is not ours
  }
  if (Array.isArray(stored?.requests)) kept.requests = stored.requests.filter((each) => each?.path && each.headers);
  if (Array.isArray(stored?.tried)) stored.tried.forEach(tick);
}

function tick(step) {
  const item = $$('#tried [data-step]').find((each) => each.dataset.step === step);
  if (!item || item.dataset.done) return false;
  item.dataset.done = 'yes';
  item.append(element('span', { class: 'away' }, ' (done)'));
  kept.tried.push(step);
  return true;
}

function save() {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(kept));
  } catch {
    // Without storage, or if it is full, the page still has everything until a reload.
  }
}
