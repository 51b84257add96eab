// All that runs in the browser; every page works without it.
(() => {
  "use strict";
  const EVERY_MS = 5000;

  // The live part of the overview, fetched anew as long as somebody looks.
  const live = document.querySelector("[data-live]");
  const note = document.querySelector(".live-note");
  const say = (text) => { if (note) { note.textContent = text; note.hidden = !text; } };
  const refresh = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(live.dataset.live, { redirect: "manual", cache: "no-store" });
      if (answer.type === "opaqueredirect") return say("Your session has ended: reload the page to sign in.");
      if (!answer.ok) return say("The gateway answered " + answer.status + "; what is shown is older.");
      const focused = live.contains(document.activeElement);
      if (!focused) live.innerHTML = await answer.text();
      say("");
    } catch {
      say("The gateway does not answer; what is shown is older.");
    }
  };
  if (live) setInterval(refresh, EVERY_MS);

  // One box that ticks all images of the page.
  for (const all of document.querySelectorAll("[data-all]")) {
    all.closest("label").hidden = false;
    all.addEventListener("change", () => {
      for (const box of all.form.elements) if (box.name === "image") box.checked = all.checked;
    });
  }
})();
