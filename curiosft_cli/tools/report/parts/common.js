"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
const at = id => document.getElementById(id);

// An element with text, never with markup: what models wrote is only shown.
function element(kind, text, className) {
  const made = document.createElement(kind);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function choices(select, pairs) {
  select.replaceChildren(...pairs.map(([value, label]) => { const option = element("option", label); option.value = value; return option; }));
}

async function unpacked(id) {
  const bytes = Uint8Array.from(atob(at(id).textContent), letter => letter.charCodeAt(0));
  return JSON.parse(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text());
}

// Runs once, when the section comes near: what is far below costs nothing when the page opens.
function whenNear(place, task) {
  if (!place) return;
  const seen = new IntersectionObserver(entries => {
    if (entries.some(entry => entry.isIntersecting)) { seen.disconnect(); task(); }
  }, {rootMargin: "600px"});
  seen.observe(place);
}

// Keys of the page; none while someone types, or holds Ctrl, Alt or Meta.
const KEYS = {};
document.addEventListener("keydown", event => {
  if (event.target.matches("input[type=search], textarea")) { if (event.key === "Escape") event.target.blur(); return; }
  const task = event.ctrlKey || event.altKey || event.metaKey ? undefined : KEYS[event.key];
  if (task) { event.preventDefault(); task(); }
});
