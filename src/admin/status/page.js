
"use strict";

const REFRESH = 5000;
const DOCS = "https://github.com/cognito-authz/cognito-authz/blob/main/";
const SHOWN_REFUSALS = 12;
const SEVERITIES = ["critical", "warning", "notice"];
const $ = (id) => document.getElementById(id);

let token = null; // in memory only
let paused = false;
let timer = null;
let answered = null; // time of the last answer
let report = null;
let showsAll = false;

// ------------------------------------------------------------------------------------------------ elements and texts

/** Makes an element. Texts become text nodes, never markup. */
function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(attribute, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Replaces the content of an element, unless it would stay the same. A link in it that has the focus keeps it. */
function fill(element, children) {
  const next = element.cloneNode(false);
  next.append(...children);
  if (next.isEqualNode(element)) return; // a selected text stays selected
  const focused = element.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  element.replaceChildren(...next.childNodes);
  if (focused) [...element.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const number = (value) => (value >= 100000 ? short : whole).format(value);
const digits = (value) => new Intl.NumberFormat("en", { maximumSignificantDigits: value >= 100 ? 3 : 2 }).format(value);
const rate = (count, seconds) => (seconds > 0 ? `${digits(count / seconds)}/s` : "");
const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;

function percent(part, all) {
  const share = all > 0 ? (part / all) * 100 : 0;
  if (share > 0 && share < 0.1) return "< 0.1\u00a0%";
  return `${share >= 10 || share === 0 ? share.toFixed(0) : share.toFixed(1)}\u00a0%`;
}

/** Text of a duration in seconds, in its two largest units. */
function span(seconds) {
  const value = Math.max(0, Math.round(seconds));
  const [days, hours, minutes] = [Math.floor(value / 86400), Math.floor(value / 3600) % 24, Math.floor(value / 60) % 60];
  const parts = days > 0 ? [days, "d", hours, "h"] : hours > 0 ? [hours, "h", minutes, "min"]
    : minutes > 0 ? [minutes, "min", value % 60, "s"] : [value, "s"];
  return parts.join("\u00a0");
}

/** Text of the duration of a check. */
function took(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds >= 1) return `${digits(seconds)} s`;
  return seconds >= 0.001 ? `${digits(seconds * 1000)} ms` : `${digits(seconds * 1e6)} µs`;
}

const bytes = (value) => `${digits(value / 2 ** 20)} MiB`;
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");
const date = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ") + " UTC";
const tag = (kind, text) => make("span", { class: `tag ${kind}` }, text);

/** Severity of the most urgent finding, of one area or of all. */
function severity(findings, area) {
  const found = findings.filter((finding) => !area || finding.area === area).map((finding) => finding.severity);
  return SEVERITIES.find((each) => found.includes(each)) ?? "good";
}

// ------------------------------------------------------------------------------------------------ verdict, answers

function showVerdict({ ready, findings, pending, shutting_down, uptime, revision, version }) {
  const worst = severity(findings);
  const serious = findings.filter((finding) => finding.severity !== "notice").length;
  const title = shutting_down ? "Shutting down"
    : !ready ? "Not ready"
    : serious === 0 ? "Everything is in order"
    : worst === "critical" ? "Ready, but users are affected"
    : `Ready, with ${plural(serious, "warning")}`;
  if ($("verdict-title").textContent !== title) {
    $("verdict-title").textContent = title;
    $("announce").textContent = title;
  }
  document.title = `${title} · cognito-authz`;
  $("verdict").className = `verdict ${shutting_down ? "warning" : worst}`;
  const build = revision === "unknown" ? version : `${version} (${revision.slice(0, 12)})`;
  $("verdict-text").textContent = `Up for ${span(uptime)}. Version ${build}.`
    + (pending.length ? ` Waiting for: ${pending.join(", ")}.` : "");
  fill($("findings"), findings.map((finding) => make("li", {},
    tag(finding.severity, finding.severity),
    make("p", {}, finding.message, " ", make("a", { href: DOCS + finding.see, rel: "noreferrer" }, "What to do",
      make("span", { class: "away" }, `: ${finding.message}`))))));
}

function tile(question, findings, area, answer, ...details) {
  return make("li", { class: severity(findings, area) },
    make("h2", {}, question),
    make("p", { class: "answer" }, answer),
    details.filter(Boolean).map((detail) => make("p", { class: "detail" }, detail)));
}

function showTiles({ findings, windows, pools, ready, shutting_down, uptime, certificates, revocation, cache, limits }) {
  const [minute, five, hour] = windows;
  const up = shutting_down ? "Shutting down" : ready ? "Yes" : "Not ready";
  const fast = five.duration.p99 === null ? "No checks" : `p99 ${took(five.duration.p99)}`;
  const refused = five.denied + five.errors;
  const [top] = five.reasons;
  const ages = pools.map((pool) => pool.age).filter((age) => age !== null);
  const cognito = severity(findings, "cognito");
  const calls = five.cognito_calls;
  const soon = findings.filter((finding) => finding.area === "tomorrow");
  const expires = certificates.length ? Math.min(...certificates.map((each) => each.left)) : null;
  const entries = Object.values(revocation.entries).reduce((sum, each) => sum + each, 0);
  fill($("tiles"), [
    tile("Is it up?", findings, "up", up, `For ${span(uptime)}`,
      `${rate(minute.checks, minute.covered)} checks in the last minute`),
    tile("Is it fast?", findings, "fast", fast, "In the last 5 minutes, without the network",
      `Median ${took(five.duration.p50)}; p99 of the hour ${took(hour.duration.p99)}`),
    tile("Who is refused?", findings, "refused",
      refused === 0 ? "No check" : `${percent(refused, five.checks)} of the checks`,
      top ? `In the last 5 minutes, mostly ${top.reason}` : "In the last 5 minutes",
      five.errors > 0 ? `${plural(five.errors, "check")} got 503` : "No check got 503"),
    tile("Is Cognito the problem?", findings, "cognito",
      cognito === "good" ? "No" : cognito === "notice" ? "Not now" : "Look here",
      ages.length ? `Keys fetched ${span(Math.max(...ages))} ago` : "Keys not fetched yet",
      calls.count > 0 ? `${number(calls.failed)} of ${plural(calls.count, "call")} failed in 5 minutes` : "No account calls in the last 5 minutes"),
    tile("And tomorrow?", findings, "tomorrow", soon.length === 0 ? "Nothing in sight" : plural(soon.length, "thing") + " to do",
      expires !== null ? `Certificate expires in ${span(expires)}` : "No certificate of its own",
      `${percent(entries, revocation.capacity)} of the revocations, ${percent(limits.open_files.count, limits.open_files.max)} of the open files used`),
  ]);
}

// ------------------------------------------------------------------------------------------------ decisions

const NAMES = ["1 minute", "5 minutes", "60 minutes"];

/** Bars of the rate in each step, on the scale of the whole window. */
function bars(window, steps) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const width = Math.max(window.seconds, window.covered);
  svg.setAttribute("viewBox", `0 0 ${width} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const rates = steps.map((count, index) => (window.lengths[index] > 0 ? count / window.lengths[index] : 0));
  const highest = Math.max(...rates, 0);
  let start = width - window.covered;
  rates.forEach((each, index) => {
    const length = window.lengths[index];
    if (each > 0) {
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const height = Math.max((each / highest) * 100, 5);
      const gap = Math.min(length * 0.15, width / 200);
      for (const [name, value] of [["x", start + gap / 2], ["y", 100 - height], ["width", length - gap], ["height", height]]) {
        bar.setAttribute(name, value.toFixed(2));
      }
      svg.append(bar);
    }
    start += length;
  });
  return svg;
}

function chart(window, index, count, steps) {
  return make("div", { class: "chart" },
    make("span", { class: "window" }, NAMES[index]),
    make("span", { class: "count" }, number(count), make("span", { class: "away" }, ` in ${NAMES[index]}`)),
    make("span", { class: "rate" }, count > 0 ? rate(count, window.covered) : ""),
    bars(window, steps));
}

function showDecisions({ windows, uptime }) {
  const hour = windows[2];
  const row = (kind, name, about, of) => make("li", { class: kind },
    make("div", {}, make("h3", {}, name, " ", kind !== "allow" && tag(kind, about.status)), make("p", { class: "about" }, about.text)),
    windows.map((window, index) => {
      const found = of(window);
      return chart(window, index, found?.count ?? 0, found?.steps ?? window.lengths.map(() => 0));
    }));
  const shadow = hour.would_be_refused > 0 ? ` ${number(hour.would_be_refused)} of them only because their policy is in shadow mode.` : "";
  const rows = [row("allow", "allowed", { text: `Requests that may reach the application.${shadow}` }, (window) => window.allowed)];
  for (const reason of hour.reasons) {
    rows.push(row(reason.decision, reason.reason, { status: String(reason.status), text: reason.meaning },
      (window) => window.reasons.find((each) => each.reason === reason.reason)));
  }
  fill($("decisions"), rows);
  $("decisions-lead").textContent = `${plural(hour.checks, "check")} in the last ${uptime < 3600 ? span(Math.min(hour.covered, uptime)) : "hour"}`
    + (hour.reasons.length ? `, by reason. Each chart has its own scale.` : ". Nothing was refused.");
}

// ------------------------------------------------------------------------------------------------ refusals

const CELLS = ["Policy", "Route", "Requirement", "Request id"];

function showRefusals() {
  const { newest, capacity, skipped } = report.refusals;
  const wanted = $("filter").value.trim().toLowerCase();
  const words = (each) => [each.reason, each.policy, each.pool, each.route, each.requirement, each.request_id];
  const matching = newest.filter((each) => !wanted || words(each).some((word) => word?.toLowerCase().includes(wanted)));
  const groups = new Map();
  for (const each of matching) {
    const key = JSON.stringify([each.reason, each.policy, each.route, each.requirement]);
    groups.set(key, { each, count: (groups.get(key)?.count ?? 0) + 1 });
  }
  const largest = [...groups.values()].sort((one, other) => other.count - one.count).slice(0, 5);
  fill($("groups"), groups.size < 2 ? [] : largest.map(({ each, count }) => make("li", {},
    make("span", { class: "count" }, number(count)), tag(each.decision, each.reason),
    make("span", { class: "from" }, [each.policy && `policy ${each.policy}`, each.route, each.requirement && `requires ${each.requirement}`].filter(Boolean).join(" · ")))));
  const shown = showsAll ? matching : matching.slice(0, SHOWN_REFUSALS);
  fill($("refusals").querySelector("tbody"), shown.map((each) => make("tr", { role: "row" },
    make("td", { role: "cell" }, make("time", { datetime: new Date(each.time * 1000).toISOString() }, clock(each.time))),
    make("td", { role: "cell" }, tag(each.decision, each.reason), each.shadow && [" ", tag("", "shadow: allowed")]),
    [each.policy, each.route, each.requirement, each.request_id].map((text, index) => make("td",
      { role: "cell", "data-label": CELLS[index], class: [text ? "" : "none", index > 0 && "mono", index === 3 && text?.length <= 36 && "id"].filter(Boolean).join(" ") }, text ?? "–")))));
  $("refusals").hidden = shown.length === 0;
  $("more").hidden = shown.length === matching.length;
  $("more").firstElementChild.textContent = `Show all ${matching.length}`;
  const missing = skipped > 0 ? ` ${plural(skipped, "refusal")} since the start came too fast to be listed.` : "";
  $("refusals-lead").textContent = newest.length === 0 ? "Nothing was refused since the start."
    : matching.length === 0 ? "No refusal matches the filter."
    : `The last ${capacity} at most; a flood of one reason does not push out the others. Users can tell you the request id.${missing}`;
}

// ------------------------------------------------------------------------------------------------ pools, cards

function showPools({ pools }) {
  fill($("pools"), pools.map((pool) => {
    const failed = Object.entries(pool.fetches).filter(([result]) => result !== "success");
    const age = pool.age === null ? (pool.key_count > 0 ? "Keys are from the file; not fetched yet" : "Never fetched")
      : `Fetched ${span(pool.age)} ago`;
    const old = pool.age === null || pool.age > 3600;
    const error = pool.last_error ? `Last error: ${pool.last_error}` : null;
    return make("li", {},
      make("div", {},
        make("h3", {}, pool.name, " ", make("small", { class: "mono" }, pool.id)),
        make("p", { class: `about ${pool.key_count === 0 ? "critical" : old ? "warning" : ""}` }, age, pool.fetching ? ", fetching now" : ""),
        failed.length > 0 && make("p", { class: "about" }, "Failed since the start: ", failed.map(([result, count]) => `${result} (${number(count)})`).join(", ")),
        error && make("p", { class: "about warning" }, error),
        make("p", { class: "about mono" }, pool.jwks_urls.join(" "))),
      make("div", {},
        make("h3", {}, pool.key_count === 0 ? "No keys" : plural(pool.key_count, "key"), pool.unused_keys > 0 ? `, ${number(pool.unused_keys)} unusable` : ""),
        make("ul", { class: "keys" }, pool.keys.map((key) => make("li", {}, make("code", {}, key.kid), make("small", {}, `first seen ${span(key.age)} ago`)))),
        pool.unknown_kids > 0 && make("p", { class: "about" }, `${plural(pool.unknown_kids, "check")} named a key that was not there`)));
  }));
}

/** A card with a list of names and values. A row is a name, a value and possibly a severity; rows without value are left out. */
function card(title, ...rows) {
  const present = rows.filter((row) => row && row[1] !== null && row[1] !== undefined && row[1] !== "");
  return make("section", { class: "card" }, make("h2", {}, title),
    make("dl", {}, present.map(([name, value, kind]) => [make("dt", {}, name), make("dd", { class: kind }, value)])));
}

const connections = ({ connection_limits: limit = {}, connections: open = {} }) =>
  Object.entries(limit).map(([listener, most]) => `${listener} ${number(open[listener] ?? 0)} of ${number(most)}`).join(", ");
const listed = (counts) => Object.entries(counts).map(([name, count]) => `${name} ${number(count)}`).join(", ") || "none";

function showCards({ cache, limits, revocation, certificates, configuration, process, windows, cognito, time }) {
  const last = configuration.last_reload;
  const { policy_file: fileError, tls: tlsError } = configuration.errors;
  const lookups = (cache.hits ?? 0) + (cache.misses ?? 0);
  const option = (name) => limits.options[name] ?? null;
  const expiry = (each) => (each.left < 86400 ? "critical" : each.left < 7 * 86400 ? "warning" : null);
  fill($("cards"), [
    card("Configuration",
      ["Hash", make("code", { title: configuration.hash }, configuration.hash.slice(0, 16))],
      ["Policy file", configuration.policy_file ? make("code", {}, configuration.policy_file) : "none"],
      ["Last reload", last ? `${last.succeeded ? "succeeded" : "failed"} ${span(time - last.time)} ago (${last.part === "tls" ? "certificates" : "policy file"})` : "none since the start", last && !last.succeeded ? "warning" : null],
      ["Policy error", fileError, "warning"],
      ["Certificate error", tlsError, "warning"]),
    card("Certificates", ...(certificates.length === 0 ? [["Listeners", "none with TLS"]] : certificates.map((each) =>
      [each.listener, each.left <= 0 ? "expired" : `${span(each.left)} left, until ${date(each.expires)}`, expiry(each)]))),
    card("Token cache",
      ["Tokens", number(cache.entries ?? 0)],
      ["Hits", lookups > 0 ? `${percent(cache.hits, lookups)} of ${number(lookups)}` : "no lookups yet"],
      ["Evicted", number(cache.evictions ?? 0)],
      ["Capacity", option("token-cache-capacity") && number(Number(option("token-cache-capacity")))]),
    card("Limits",
      ["Running checks", number(limits.checks_in_flight ?? 0)],
      ["Open files", limits.open_files.count !== null ? `${number(limits.open_files.count)} of ${number(limits.open_files.max)}` : null],
      ["Connections", connections(limits)],
      ["… refused", limits.refused_connections && Object.keys(limits.refused_connections).length > 0 ? listed(limits.refused_connections) : null, "warning"],
      ["Streams", limits.streams === null || limits.streams === undefined ? null : number(limits.streams)],
      ["gRPC connections", option("grpc-max-connections") && `at most ${number(Number(option("grpc-max-connections")))}`],
      ["Streams each", option("grpc-max-streams") && `at most ${number(Number(option("grpc-max-streams")))}`],
      ["Account API", [["address", "limit-address"], ["user", "limit-user"], ["messages", "limit-sends"]].filter(([, name]) => option(name)).map(([what, name]) => `${what} ${option(name)}`).join(", ")],
      ["Refused by them", listed(limits.rate_limited)],
      ["… in 5 minutes", number(windows[1].rate_limited)]),
    card("Revocation",
      ["Kept in", { memory: "memory: lost at a restart", file: "a file of this replica", store: "the shared store" }[revocation.kept_in]],
      ["Reach", revocation.scope === "shared" ? "all replicas" : "this replica only"],
      ["Entries", `${listed(revocation.entries)} (at most ${number(revocation.capacity)})`],
      ["Written", listed(revocation.writes)],
      ["Store", revocation.store && (revocation.store.up ? "answers" : revocation.store.checks_fail_without_it ? "lost: checks get 503" : "lost"), revocation.store && !revocation.store.up ? "critical" : null],
      ["Last answer", revocation.store?.last_sync && `${span(time - revocation.store.last_sync)} ago`],
      ["Lag", revocation.store && `${digits(revocation.store.lag ?? 0)} s`]),
    card("Account API and Cognito",
      ["Requests", listed(cognito.account_requests)],
      ["Calls to Cognito", listed(cognito.calls)],
      ["Key fetches", `${number(windows[2].key_fetches.count)} in the hour, ${number(windows[2].key_fetches.failed)} failed`, windows[1].key_fetches.failed > 0 ? "warning" : null]),
    card("Process",
      ["Memory", process.resident_bytes && bytes(process.resident_bytes)],
      ["CPU", process.cpu_seconds !== null && `${digits(process.cpu_seconds)} s since the start`],
      ["Threads", process.threads && number(process.threads)]),
  ]);
}

// ------------------------------------------------------------------------------------------------ refresh

function show(next) {
  report = next;
  showVerdict(report);
  showTiles(report);
  showDecisions(report);
  showRefusals();
  showPools(report);
  showCards(report);
}

/** Shows either the report, or the form that asks for the token. */
function switchTo(view) {
  const was = $("ask").hidden;
  $("ask").hidden = view !== "ask";
  $("report").hidden = view !== "report" || report === null;
  $("pause").hidden = view !== "report";
  $("forget").hidden = token === null;
  // A link cannot send the token.
  $("json").hidden = token !== null || view === "ask";
  if (view === "ask") {
    $("updated").textContent = "";
    if (was) $("token").focus();
  }
}

function showLost(why) {
  $("lost").textContent = `${why} ${answered ? `Below is the state of ${answered.toLocaleTimeString("en-GB")}.` : "Trying again."}`;
  $("lost").hidden = false;
  $("report").classList.add("old");
  document.title = "No answer · cognito-authz";
}

/** Reads the status once. Returns a message if the token was not accepted. */
async function refresh() {
  let response;
  const used = token;
  try {
    const headers = token === null ? {} : { authorization: `Bearer ${token}` };
    response = await fetch("status", { headers, cache: "no-store", credentials: "same-origin", redirect: "error", signal: AbortSignal.timeout(10000) });
    if (used !== token) return ""; // a newer request has another token
    if (response.status === 401 || response.status === 429) {
      const wait = response.headers.get("retry-after");
      const message = response.status === 429 ? `There were too many wrong tokens. Try again in ${wait} s.`
        : token === null ? "" : "This is not the token.";
      token = null;
      report = null;
      switchTo("ask");
      return message;
    }
    if (!response.ok) throw new Error(`status ${response.status}`);
    show(await response.json());
  } catch (error) {
    showLost(response ? `This instance answered with an error (${error.message}).` : "This instance does not answer.");
    return "";
  }
  answered = new Date();
  $("lost").hidden = true;
  $("report").classList.remove("old");
  $("updated").replaceChildren("Updated ", make("time", {}, answered.toLocaleTimeString("en-GB")));
  switchTo("report");
  return "";
}

/** Reads the status now, and again after a while. */
async function run() {
  clearTimeout(timer);
  const message = await refresh();
  clearTimeout(timer);
  if ($("ask").hidden && !paused && !document.hidden) timer = setTimeout(run, REFRESH);
  return message;
}

$("ask").querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = $("token").value.trim();
  $("token-error").textContent = "";
  if (!/^[\x21-\x7e]+$/.test(given)) {
    $("token-error").textContent = "The token is one word of visible ASCII characters.";
    $("token").focus();
    return;
  }
  token = given;
  $("token-error").textContent = await run();
  if ($("ask").hidden) {
    $("token").value = "";
    $("main").focus();
  } else {
    $("token").focus();
  }
});

$("forget").addEventListener("click", () => location.reload()); // everything on the page is gone, too

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  $("pause").textContent = paused ? "Paused" : "Pause";
  if (paused) clearTimeout(timer);
  else run();
});

$("filter").addEventListener("input", showRefusals);
$("more").firstElementChild.addEventListener("click", () => {
  showsAll = true;
  showRefusals();
  $("refusals-title").scrollIntoView();
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else if ($("ask").hidden && !paused) run();
});

run();
