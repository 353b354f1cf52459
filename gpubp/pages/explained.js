"use strict";
// Chooses which of the page's numbers are seen, and lights what belongs together.

const shown = document.getElementById("shown");
const slider = document.getElementById("step");
const drawing = document.getElementById("drawing");
const said = JSON.parse(document.getElementById("steps").textContent);
const terms = [...document.querySelectorAll(".term")];
const places = [...drawing.querySelectorAll(".place")];
const words = (text) => text.split(" ").filter(Boolean);

function step(number) {
  shown.dataset.step = number;
  slider.setAttribute("aria-valuetext", said[number]);
  document.getElementById("said").textContent = said[number];
}

function choose(name, value) {
  const choice = shown.querySelector(`input[name="${name}"][value="${value}"]`);
  if (choice) choice.checked = true;
  shown.dataset[name] = value;
}

// Light a term and its places, or a place and its terms.
function light(target) {
  for (const each of shown.querySelectorAll(".own, .uses")) each.classList.remove("own", "uses");
  if (!target) return;
  if (target.matches(".term")) {
    target.classList.add("own");
    choose("phase", target.dataset.phase);
    choose("slot", target.dataset.slot);
    const lit = { own: words(target.dataset.own), uses: words(target.dataset.uses) };
    for (const each of drawing.querySelectorAll("[data-place]"))
      for (const kind of ["uses", "own"]) if (lit[kind].includes(each.dataset.place)) each.classList.add(kind);
    const place = counterpart(target);
    if (place) drawing.parentElement.scrollLeft += middle(place)[0] - middle(drawing.parentElement)[0];
  } else {
    const place = target.dataset.place;
    for (const each of drawing.querySelectorAll(`[data-place="${place}"]`)) each.classList.add("own");
    for (const each of terms)
      for (const kind of ["own", "uses"]) if (words(each.dataset[kind]).includes(place)) each.classList.add(kind);
  }
}

// Its first term in what the drawing shows, or the term's place.
function counterpart(target) {
  if (target.matches(".term")) return places.find((each) => each.dataset.place === words(target.dataset.own)[0]);
  const own = terms.filter((each) =>
    words(each.dataset.own).includes(target.dataset.place) && getComputedStyle(each).display !== "none");
  return own.find((each) => each.dataset.phase === shown.dataset.phase) ?? own[0];
}

function go(target) {
  const other = counterpart(target);
  if (!other) return;
  other.closest("details")?.setAttribute("open", "");
  if (other.matches(".place")) rove(other);
  other.focus({ preventScroll: true });
  other.scrollIntoView({ block: "center", inline: "center", behavior: "instant" });
}

// One place of the drawing is in the order of Tab; arrows go to the nearest one in their direction.
function rove(place) {
  for (const each of places) each.tabIndex = each === place ? 0 : -1;
}

function middle(element) {
  const box = element.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
}

function nearest(from, [right, down]) {
  const [x, y] = middle(from);
  let best, least = Infinity;
  for (const each of places) {
    const [u, v] = middle(each);
    const ahead = (u - x) * right + (v - y) * down;
    const aside = Math.abs((u - x) * down) + Math.abs((v - y) * right);
    if (each !== from && ahead > 1 && ahead + 3 * aside < least) [best, least] = [each, ahead + 3 * aside];
  }
  return best;
}

const ARROWS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
const linked = (event) => event.target.closest?.(".term, #drawing [data-place]");
let focused = null;

shown.addEventListener("pointerover", (event) => linked(event) && light(linked(event)));
shown.addEventListener("pointerout", (event) => linked(event) && light(focused));
shown.addEventListener("focusin", (event) => light((focused = linked(event))));
shown.addEventListener("focusout", () => light((focused = null)));
shown.addEventListener("change", (event) => event.target.type === "radio" && choose(event.target.name, event.target.value));
shown.addEventListener("keydown", (event) => {
  const target = linked(event);
  if (!target || event.target !== target) return;
  const other = target.matches(".place") && event.key in ARROWS ? nearest(target, ARROWS[event.key]) : null;
  if (other) {
    rove(other);
    other.focus();
  } else if (event.key === "Enter" || (event.key === " " && target.matches(".place"))) {
    go(target);
  } else if (!(target.matches(".place") && event.key in ARROWS)) {
    return;
  }
  event.preventDefault();
});
drawing.addEventListener("click", (event) => linked(event) && go(linked(event)));
if (slider) slider.addEventListener("input", () => step(slider.value));
rove(places[0]);

// On which sides there is more.
function edges(wide) {
  wide.classList.toggle("before", wide.scrollLeft > 1);
  wide.classList.toggle("after", wide.scrollWidth - wide.clientWidth - wide.scrollLeft > 1);
}

const resized = new ResizeObserver((all) => all.forEach((each) => edges(each.target)));
for (const wide of shown.querySelectorAll(".wide")) {
  wide.addEventListener("scroll", () => edges(wide));
  resized.observe(wide);
}

const folded = [];
addEventListener("beforeprint", () => {
  folded.push(...document.querySelectorAll("details:not([open])"));
  for (const each of folded) each.open = true;
});
addEventListener("afterprint", () => folded.splice(0).forEach((each) => (each.open = false)));
