"use strict";
const VALUES = {
  entropy: "entropy (nats)", tau: "temperature tau", delta: "increment delta (nats)", weight: "weight w",
  gap: "gap, log student - log teacher (nats)", logp: "log-probability of the token (nats)",
  teacher_logp: "the teacher's log-probability (nats)",
};
const MIDDLE = {gap: 0, weight: 1};

// The colour of a value: from clear to blue; for values around a middle also to orange below it.
function tint(name, value, low, high) {
  const middle = MIDDLE[name];
  const share = middle === undefined ? (value - low) / (high - low || 1) : Math.abs(value - middle) / (Math.max(high - middle, middle - low) || 1);
  const hue = middle !== undefined && value < middle ? "#d55e00" : "#0072b2";
  return `color-mix(in srgb, ${hue} ${Math.round(75 * Math.max(0, Math.min(1, share)))}%, transparent)`;
}

async function showMap() {
  const runs = await unpacked("map-data");
  let row, seen, spans = [], chosen = -1;
  choices(at("map-run"), runs.map((run, place) => [place, run.run]));

  function chooseRun() {
    const rows = runs[at("map-run").value].rows, before = at("map-row").value;
    choices(at("map-row"), rows.map((some, place) => [place, `row ${some.row}: ${some.id}`]));
    if (rows[before]) at("map-row").value = before;
    chooseRow();
  }

  function chooseRow() {
    row = runs[at("map-run").value].rows[at("map-row").value];
    at("map-step").max = row.steps.length - 1;
    at("map-step").value = row.steps.length - 1;
    const before = at("map-value").value;
    choices(at("map-value"), Object.entries(VALUES).filter(([name]) => row.steps.some(step => step[name])));
    if (row.steps.some(step => step[before])) at("map-value").value = before;
    at("map-prompt").textContent = row.prompt;
    spans = row.tokens.map((token, place) => { const span = element("span", token.replace(/\n/g, "\u21b5\n")); span.dataset.place = place; return span; });
    at("map-tokens").replaceChildren(...spans);
    choose(-1);
    colour();
  }

  function colour() {
    seen = row.steps[at("map-step").value];
    const name = at("map-value").value, all = row.steps.flatMap(step => step[name] || []);
    const low = Math.min(...all), high = Math.max(...all), values = seen[name] || [];
    spans.forEach((span, place) => { span.style.background = tint(name, values[place], low, high); });
    at("map-at").textContent = seen.step;
    const ends = MIDDLE[name] === undefined ? [low, high] : (far => [MIDDLE[name] - far, MIDDLE[name] + far])(Math.max(high - MIDDLE[name], MIDDLE[name] - low));
    const ramp = element("i");
    ramp.style.background = `linear-gradient(to right, ${[0, .25, .5, .75, 1].map(part => tint(name, ends[0] + part * (ends[1] - ends[0]), low, high)).join(", ")})`;
    at("map-scale").replaceChildren(element("span", ends[0].toPrecision(3)), ramp, element("span", ends[1].toPrecision(3)));
    if (chosen >= 0) card();
  }

  function card() {
    const facts = element("dl"), both = element("div", undefined, "both");
    for (const [name, label] of Object.entries(VALUES)) {
      if (seen[name]) facts.append(element("dt", label), element("dd", seen[name][chosen]));
    }
    for (const who of ["student", "teacher"]) {
      if (!seen[who]) continue;
      const column = element("div", undefined, who), some = seen[who][chosen], lines = element("ol");
      for (let place = 0; place < some.length; place += 2) lines.append(element("li", `${(100 * some[place + 1]).toFixed(1)} %  ${JSON.stringify(some[place])}`));
      column.append(element("b", who === "teacher" ? "teacher at tau" : who), lines);
      both.append(column);
    }
    at("card").replaceChildren(element("b", `${JSON.stringify(row.tokens[chosen])}, token ${chosen + 1} of ${spans.length}, step ${seen.step}`), facts, both);
    at("card").hidden = false;
    const place = spans[chosen].getBoundingClientRect(), size = at("card").getBoundingClientRect();
    at("card").style.left = `${Math.max(4, Math.min(place.left, innerWidth - size.width - 4))}px`;
    at("card").style.top = `${place.bottom + size.height + 8 < innerHeight ? place.bottom + 6 : Math.max(4, place.top - size.height - 6)}px`;
  }

  function choose(place) {
    if (spans[chosen]) spans[chosen].className = "";
    chosen = place;
    at("card").hidden = chosen < 0;
    if (chosen < 0) return;
    spans[chosen].className = "chosen";
    card();
  }

  const step = by => { at("map-step").value = Number(at("map-step").value) + by; colour(); };
  const walk = by => { choose(Math.max(0, Math.min(spans.length - 1, chosen + by))); spans[chosen].scrollIntoView({block: "nearest"}); card(); };
  Object.assign(KEYS, {n: () => walk(1), p: () => walk(-1), "]": () => step(1), "[": () => step(-1)});
  const pointed = event => { if (event.target.dataset.place) choose(Number(event.target.dataset.place)); };
  at("map-tokens").addEventListener("pointerover", pointed);
  at("map-tokens").addEventListener("click", pointed);
  at("map-tokens").addEventListener("pointerleave", () => choose(-1));
  document.addEventListener("scroll", () => chosen >= 0 && card(), {passive: true});
  at("map-run").addEventListener("input", chooseRun);
  at("map-row").addEventListener("input", chooseRow);
  ["map-value", "map-step"].forEach(id => at(id).addEventListener("input", colour));
  chooseRun();
}

whenNear(at("map-tokens"), showMap);
