// Dragging rows onto a card, which moves them to its cluster. By keyboard, S selects and the bar of the selection moves.

const FAR = 6; // pixels from which a press is a drag
const drag = { rows: null, from: null, ghost: null, card: null };

const numberOf = (card) => Number(card.id.slice("cluster-".length));

/** The card at a point, if rows can be moved to it. */
function cardAt(x, y) {
  const card = document.elementFromPoint(x, y)?.closest(".cluster");
  return card && !isFixed(numberOf(card)) && !isGone(numberOf(card)) ? card : null;
}

/** Shows at the pointer what would be moved, and where. */
function showDrag(x, y) {
  const card = cardAt(x, y);
  drag.card?.classList.remove("target");
  card?.classList.add("target");
  drag.card = card;
  drag.ghost.textContent = plural(drag.rows.length, "row") + (card ? ` → ${titleOf(numberOf(card))}` : "");
  drag.ghost.style.left = `${Math.min(x + 12, innerWidth - drag.ghost.offsetWidth)}px`;
  drag.ghost.style.top = `${y + 12}px`;
}

function endDrag() {
  drag.card?.classList.remove("target");
  drag.ghost?.remove();
  document.body.classList.remove("dragging");
  Object.assign(drag, { rows: null, from: null, ghost: null, card: null });
}

/** Keeps the click at the end of a drag from the element below the pointer. */
function swallowClick() {
  const stop = (event) => event.stopPropagation();
  addEventListener("click", stop, { capture: true, once: true });
  setTimeout(() => removeEventListener("click", stop, { capture: true }));
}

function useDragging() {
  by("selected").title = "Drag onto a cluster to move them there";
  addEventListener("pointerdown", (event) => {
    // A finger scrolls.
    if (event.button || event.pointerType === "touch") return;
    const tile = event.target.closest?.(".tile");
    if (!tile && event.target.id !== "selected") return;
    const row = tile ? Number(tile.dataset.row) : null;
    drag.rows = !tile || selected.has(row) ? [...selected] : [row];
    drag.from = [event.clientX, event.clientY];
  });
  addEventListener("pointermove", (event) => {
    if (!drag.rows) return;
    const { clientX: x, clientY: y } = event;
    if (!drag.ghost) {
      if (Math.hypot(x - drag.from[0], y - drag.from[1]) < FAR) return;
      drag.ghost = make("div", { id: "ghost" });
      document.body.append(drag.ghost);
      document.body.classList.add("dragging");
    }
    showDrag(x, y);
  });
  addEventListener("pointerup", () => {
    const { rows: list, card, ghost } = drag;
    endDrag();
    if (!ghost) return;
    swallowClick();
    if (!card) return;
    report(move(list, numberOf(card)), list.length);
    list.forEach((row) => selected.delete(row));
  });
  addEventListener("pointercancel", endDrag);
  addEventListener("keydown", (event) => event.key === "Escape" && endDrag());
  // The browser's own dragging of pictures would cancel the pointer.
  addEventListener("dragstart", (event) => event.target.closest?.(".tile") && event.preventDefault());
}

if (data.editable) useDragging();
