// Connects the map with pointer and keyboard, and shows the page.

function usePointer() {
  const { over } = field;
  const button = by("lasso");
  let drag = null; // the lasso so far, or the pixel from which the map is moved
  const isLasso = () => button.getAttribute("aria-pressed") === "true";
  const setLasso = (on) => {
    button.setAttribute("aria-pressed", on);
    over.classList.toggle("drawing", on);
  };
  setLasso(matchMedia("(pointer: fine)").matches);
  button.addEventListener("click", () => setLasso(!isLasso()));

  over.addEventListener("pointerdown", (event) => {
    if (event.button || (event.pointerType === "touch" && !isLasso())) return;
    drag = [[event.offsetX, event.offsetY]];
    over.setPointerCapture(event.pointerId);
  });
  over.addEventListener("pointermove", (event) => {
    const here = [event.offsetX, event.offsetY];
    if (!drag) return point(nearest(...here));
    if (isLasso()) {
      drag.push(here);
      return point(-1, drag);
    }
    field.left -= (here[0] - drag.at(-1)[0]) / field.zoom;
    field.top -= (here[1] - drag.at(-1)[1]) / field.zoom;
    drag.push(here);
    return changed();
  });
  over.addEventListener("pointerup", (event) => {
    const path = drag;
    drag = null;
    if (!path) return;
    const far = path.some(([x, y]) => Math.hypot(x - path[0][0], y - path[0][1]) > 5);
    const row = nearest(event.offsetX, event.offsetY);
    if (!far && row >= 0) enlarge(row, [row]);
    if (!far || !isLasso()) return;
    if (!event.shiftKey) selected.clear();
    toggle(placed.filter((other) => inside(path, px[other], py[other])), true);
    point(-1);
    say(`${plural(selected.size, "row")} selected.`);
  });
  over.addEventListener("pointercancel", () => ((drag = null), point(-1)));
  over.addEventListener("pointerleave", () => drag || point(-1));
  over.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return; // the page scrolls
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 200), event.offsetX, event.offsetY);
  }, { passive: false });
}

/** Arrow keys go from row to row; Enter enlarges, S selects, + and - zoom, 0 shows everything. */
function useKeys() {
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  field.over.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const way = ways[event.key];
    const { at } = field;
    if (way) {
      const [x, y] = at < 0 ? [field.width / 2, field.height / 2] : [px[at], py[at]];
      const ahead = (row) => {
        const [dx, dy] = [px[row] - x, py[row] - y];
        const along = dx * way[0] + dy * way[1];
        return along > 1 && along >= Math.abs(dx * way[1] + dy * way[0]);
      };
      const next = nearest(x, y, at < 0 ? undefined : ahead, 1e6);
      if (next >= 0) point(next);
      if (next >= 0) say(field.tip.textContent);
    } else if (event.key === "Enter" && at >= 0) enlarge(at, [at]);
    else if (event.key.toLowerCase() === "s" && at >= 0) toggle([at]);
    else if (event.key === "+") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "0") zoom(0);
    else if (event.key === "Escape") point(-1);
    else return;
    event.preventDefault();
  });
}

function startMap() {
  usePointer();
  useKeys();
  onClick("closer", () => zoom(1.5));
  onClick("farther", () => zoom(1 / 1.5));
  onClick("whole", () => ((field.shown = null), zoom(0)));
  onChange(drawMap);
  new ResizeObserver(resized).observe(field.base);
  for (const query of ["print", "(prefers-color-scheme: dark)"]) matchMedia(query).addEventListener("change", drawMap);
}

showCards();
if (data.map) startMap();
changed();
