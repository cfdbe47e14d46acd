"use strict";
// A question: [benchmark, id, text, gold, [[model, [[text, right, reason, answer, tokens], ...]], ...]]
const isSolved = responses => responses.some(response => response[1] === 1);

function fits(question, wanted) {
  const [benchmark, id, text, , models] = question;
  if (wanted.benchmark && wanted.benchmark !== benchmark) return false;
  if (wanted.reason && !models.some(([, responses]) => responses.some(response => response[2] === wanted.reason))) return false;
  const solving = models.filter(([, responses]) => isSolved(responses)).map(([model]) => String(model));
  if (wanted.solved === "one" && solving.length !== 1) return false;
  if (wanted.solved === "none" && solving.length) return false;
  if (wanted.solved.startsWith("only ") && !(solving.length === 1 && solving[0] === wanted.solved.slice(5))) return false;
  const words = wanted.search.toLowerCase();
  return !words || [id, text, ...models.flatMap(([, responses]) => responses.map(response => response[0]))]
    .some(part => part.toLowerCase().includes(words));
}

async function showSamples() {
  const {models, questions} = await unpacked("samples-data");
  const several = values => [...new Set(values)].sort().map(value => [value, value]);
  choices(at("benchmark"), [["", "all benchmarks"], ...several(questions.map(question => question[0]))]);
  choices(at("solved"), [["", "solved by any or none"], ["none", "solved by none"], ["one", "solved by one model only"],
    ...models.map((label, model) => [`only ${model}`, `solved by ${label} only`])]);
  choices(at("reason"), [["", "all grades"],
    ...several(questions.flatMap(question => question[4].flatMap(([, some]) => some.map(response => response[2]))))]);
  let shown = [], number = 0;

  function list() {
    const wanted = Object.fromEntries(["benchmark", "solved", "reason", "search"].map(id => [id, at(id).value]));
    shown = questions.filter(question => fits(question, wanted));
    at("count").textContent = `${shown.length} of ${questions.length} questions`;
    choices(at("list"), shown.map((question, place) => [place, `${question[4].map(([, some]) =>
      `${some.filter(response => response[1] === 1).length}/${some.length}`).join(" ")}  ${question[1]}  ${question[2].slice(0, 120)}`]));
    at("list").selectedIndex = shown.length ? 0 : -1;
    number = 0;
    detail();
  }

  function detail() {
    const question = shown[at("list").selectedIndex];
    at("question").replaceChildren();
    if (!question) return;
    const [benchmark, id, text, gold, found] = question;
    const columns = element("div", undefined, "models");
    for (const [model, responses] of found) {
      const [written, right, reason, answer, tokens] = responses[number % responses.length];
      const column = element("div");
      column.append(element("h3", `${models[model]}, response ${number % responses.length + 1} of ${responses.length}`),
        element("div", `${reason}${answer ? `, answer ${answer}` : ""}, ${tokens} tokens`, right === 1 ? "right" : "wrong"),
        element("div", written, "text"));
      columns.append(column);
    }
    at("question").append(element("h3", `${benchmark}, ${id}; gold: ${gold}`), element("div", text, "text"), columns);
  }

  const move = by => {
    at("list").selectedIndex = Math.max(0, Math.min(shown.length - 1, at("list").selectedIndex + by));
    number = 0;
    detail();
  };
  const turn = by => {
    const question = shown[at("list").selectedIndex];
    const most = question ? Math.max(...question[4].map(([, some]) => some.length)) : 1;
    number = (number + by + most) % most;
    detail();
  };
  Object.assign(KEYS, {j: () => move(1), k: () => move(-1), l: () => turn(1), h: () => turn(-1), "/": () => at("search").focus()});
  ["benchmark", "solved", "reason", "search"].forEach(id => at(id).addEventListener("input", list));
  at("list").addEventListener("change", () => { number = 0; detail(); });
  list();
}

whenNear(at("list"), showSamples);
