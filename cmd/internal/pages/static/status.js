// The pages are whole without this. It has them follow the tree, keeps "3 min ago" true,
// and gives "/" to the search box.
"use strict";

const live = document.getElementById("live");
const say = text => { if (live) live.textContent = text; };

// One stream a tab, and only while it is seen: a browser opens six to a server.
class Stream {
	constructor(address, hears) { this.address = address; this.hears = hears; }
	open() {
		if (this.source) return;
		this.source = new EventSource(this.address());
		for (const [name, hear] of Object.entries(this.hears)) this.source.addEventListener(name, hear);
		this.source.onerror = () => {
			say("the connection was lost; trying again");
			// An answer that is no stream ends the source for good: another one is begun.
			if (this.source?.readyState === EventSource.CLOSED) { this.close(); this.later = setTimeout(() => this.again(), 5000); }
		};
	}
	again() { if (!document.hidden && streams.includes(this)) this.open(); }
	close() { clearTimeout(this.later); if (this.source) this.source.close(); this.source = null; }
}

const streams = [];
function begin(stream) {
	streams.push(stream);
	if (!document.hidden) stream.open();
}
document.addEventListener("visibilitychange", () => streams.forEach(s => document.hidden ? s.close() : s.open()));
addEventListener("pagehide", () => streams.forEach(s => s.close()));
addEventListener("pageshow", () => { if (!document.hidden) streams.forEach(s => s.open()); });

// Parts with data-live are replaced where they differ; the rest of the page, its place and
// what is open or has the focus stay.
let seen = null, busy = false, again = false;
async function refresh() {
	if (busy) { again = true; return; }
	busy = true;
	try {
		const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
		if (answer.ok) put(new DOMParser().parseFromString(await answer.text(), "text/html"));
		else if (answer.status === 429 || answer.status === 503) setTimeout(refresh, 2000 + 6000 * Math.random());
	} catch { say("the page cannot be brought up to date"); }
	busy = false;
	if (again) { again = false; setTimeout(refresh, 1000); }
}

function put(fresh) {
	let changed = 0;
	for (const part of document.querySelectorAll("[data-live]")) {
		const now = fresh.querySelector(`[data-live="${CSS.escape(part.dataset.live)}"]`);
		if (!now || now.innerHTML === part.innerHTML) continue;
		if (part.contains(document.activeElement) && document.activeElement.matches("input, select, textarea")) continue;
		const held = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
		const open = new Set([...part.querySelectorAll("details[open]")].map(d => d.id));
		if (rows(part, now)) { changed++; continue; }
		part.replaceChildren(...now.childNodes);
		for (const d of part.querySelectorAll("details")) if (d.id && open.has(d.id)) d.open = true;
		if (held) part.querySelector(`a[href="${CSS.escape(held)}"]`)?.focus();
		changed++;
	}
	const asof = fresh.getElementById("asof");
	if (asof) document.getElementById("asof")?.replaceChildren(...asof.childNodes);
	if (changed) say("brought up to date at " + new Date().toLocaleTimeString());
	ages();
}

// A long table whose columns stay the same: only the rows that differ are touched.
function rows(part, now) {
	const a = part.querySelector("tbody[data-rows]"), b = now.querySelector("tbody[data-rows]");
	if (!a || !b || a.rows.length < 50) return false;
	const old = new Map([...a.rows].map(r => [r.outerHTML, r]));
	a.replaceChildren(...[...b.rows].map(r => {
		const same = old.get(r.outerHTML);
		if (!same) r.classList.add("fresh");
		return same || r;
	}));
	return true;
}

if (document.body.dataset.events) {
	begin(new Stream(() => document.body.dataset.events, {
		now: e => { if (seen !== null && seen !== e.data) refresh(); seen = e.data; say("live"); },
		change: e => { seen = e.data; refresh(); },
	}));
}

// How long ago things were.
const units = [[172800, 86400, "days"], [3600, 3600, "h"], [60, 60, "min"]];
function ago(t) {
	const s = (Date.now() - t) / 1000;
	if (!(s >= 60)) return "just now";
	for (const [from, each, word] of units) if (s >= from) return `${Math.floor(s / each)} ${word} ago`;
}
function ages() {
	for (const t of document.querySelectorAll("time")) {
		const at = Date.parse(t.dateTime);
		if (at <= Date.now() && / ago$|^just now$/.test(t.textContent)) t.textContent = ago(at);
	}
}
setInterval(ages, 30000);

// The keyboard: / looks for something, Escape leaves it.
addEventListener("keydown", e => {
	if (e.ctrlKey || e.metaKey || e.altKey) return;
	const box = document.getElementById("q");
	if (e.key === "/" && !e.target.matches("input, textarea, select")) { e.preventDefault(); box.focus(); box.select(); }
	if (e.key === "Escape" && e.target === box) box.blur();
});

// A log that is being written: lines come as they are written, at its end. It follows as long
// as its end is in sight, and keeps the newest lines.
const log = document.querySelector("[data-log]");
if (log) {
	const most = 5000, list = log.querySelector("ol.tail");
	let at = log.dataset.at, line = Number(log.dataset.line), follow = true;
	const below = () => log.getBoundingClientRect().bottom <= innerHeight + 200, end = () => log.scrollIntoView({ block: "end" });
	addEventListener("scroll", () => { follow = below(); }, { passive: true });
	const add = e => {
		at = e.lastEventId;
		const some = document.createDocumentFragment();
		for (const text of JSON.parse(e.data)) {
			const li = document.createElement("li"), n = document.createElement("a"), s = document.createElement("span");
			li.id = "L" + line; n.className = "n"; n.href = "#L" + line; n.textContent = line; s.textContent = text;
			li.append(n, s);
			some.append(li);
			line++;
		}
		list.append(some);
		while (list.children.length > most) list.firstElementChild.remove();
		if (follow) end();
	};
	const stream = new Stream(() => log.dataset.log + "?at=" + at, {
		lines: add,
		end: () => { stream.close(); streams.length = 0; say("the build has ended"); location.reload(); },
	});
	begin(stream);
	if (!location.hash) end();
}
