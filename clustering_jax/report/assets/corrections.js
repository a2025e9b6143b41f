// The bar of the selection, and the list of corrections.

/** Tells a screen reader, and everybody else, what has just happened. */
function say(text) {
  by("status").textContent = text;
}

function report(stay, all) {
  say(stay ? `${plural(stay, "row")} of locked clusters stay; ${plural(all - stay, "row")} moved.` : `${plural(all, "row")} moved.`);
}

function showBar() {
  const merging = [...ticked].sort((a, b) => a - b);
  const made = corrections().length;
  by("bar").hidden = !selected.size && !merging.length && !made;
  by("selection").hidden = !selected.size;
  by("selected").textContent = `${plural(selected.size, "row")} selected`;
  by("merging").hidden = !merging.length;
  by("merge").disabled = merging.length < 2;
  by("merge").textContent = merging.length < 2 ? `Merge ${merging[0]} with ... (tick another)` : `Merge ${merging.join(", ")}`;
  fillTargets(by("target"));
}

function corrections() {
  const moved = new Map();
  for (const [row, number] of moves) moved.set(number, [...(moved.get(number) ?? []), row]);
  return [
    ...merges.map((group) => [`Merge ${group.join(", ")} into ${titleOf(group[0])}`, () => (merges = merges.filter((other) => other !== group))]),
    ...[...splits].map(([number, parts]) => [`Split ${titleOf(number)} into ${parts}`, () => splits.delete(number)]),
    ...[...names].map(([number, name]) => [`Rename cluster ${number} to ${name}`, () => names.delete(number)]),
    ...[...moved].map(([number, list]) => [`Move ${plural(list.length, "row")} to ${titleOf(number)}`, () => list.forEach((row) => moves.delete(row))]),
    ...[...locks].map(([number, on]) => [`${on ? "Lock" : "Unlock"} ${titleOf(number)}`, () => lock(number, !on)]),
  ];
}

function showCorrections() {
  const list = corrections();
  by("correcting").hidden = !list.length;
  by("no-corrections").hidden = Boolean(list.length);
  by("corrections").replaceChildren(...list.map(([text, undo]) => {
    const button = make("button", { type: "button", "aria-label": `Undo: ${text}` }, "Undo");
    button.addEventListener("click", () => (undo(), changed(true)));
    return make("li", {}, make("span", {}, text), " ", button);
  }));
  by("count").hidden = !list.length;
  by("count").textContent = plural(list.length, "correction");
}

onClick("move", () => {
  report(move(selected, Number(by("target").value)), selected.size);
  selected.clear();
});
onClick("ids", () => save("ids.txt", "text/plain", [...selected].sort((a, b) => a - b).map((row) => `${rows.id[row]}\n`).join("")));
onClick("count", () => by("correct").scrollIntoView());
onClick("clear", () => (selected.clear(), ticked.clear(), changed()));
onClick("merge", () => merge(ticked));
onClick("download", () => {
  save("corrections.json", "application/json", `${JSON.stringify(request(), null, 1)}\n`);
  saved = true;
});
addEventListener("beforeunload", (event) => {
  if (!saved && Object.keys(request()).length) event.preventDefault();
});
onChange(showBar);
if (data.editable) onChange(showCorrections);
