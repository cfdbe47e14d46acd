"use strict";
const AXIS = {automargin: true, zeroline: false};
const LAYOUT = {
  height: 300, margin: {l: 50, r: 12, t: 8, b: 40}, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
  font: {family: "system-ui, sans-serif", size: 12}, showlegend: true, hovermode: "closest",
  legend: {orientation: "h", x: 0, y: 1.02, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)"},
};

function draw(place) {
  if (place.dataset.drawn) return;
  place.dataset.drawn = "yes";
  const {traces, layout} = DATA.charts[place.dataset.chart];
  place.style.height = `${layout.height || LAYOUT.height}px`;
  const axes = Object.fromEntries(["xaxis", "yaxis", "yaxis2"].filter(name => name !== "yaxis2" || layout[name])
    .map(name => [name, {...AXIS, ...layout[name]}]));
  Plotly.newPlot(place, traces, {...LAYOUT, ...layout, ...axes}, {responsive: true, displaylogo: false, displayModeBar: false});
}

// Each chart is drawn when the browser has time, those in sight first.
const waiting = [...document.querySelectorAll(".chart")];
waiting.forEach(place => whenNear(place, () => draw(place)));
const idle = window.requestIdleCallback || (task => setTimeout(task, 30));
const drawNext = () => { const place = waiting.shift(); if (place) { draw(place); idle(drawNext); } };
window.addEventListener("load", () => idle(drawNext));

// Paper has room for two charts side by side, whatever the window has.
const resize = size => document.querySelectorAll(".chart").forEach(place => Plotly.relayout(place, size));
window.addEventListener("beforeprint", () => { waiting.splice(0).forEach(draw); resize({width: 340}); });
window.addEventListener("afterprint", () => resize({width: null, autosize: true}));
