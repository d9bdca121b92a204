"use strict";
// Puts the page's new content in place of the old, and writes times in the reader's time zone.
// Without this script everything is there as well: the browser loads the page anew.
(() => {
  const localise = () => {
    const now = Number(document.querySelector("main").dataset.now);
    for (const element of document.querySelectorAll("[data-time]")) {
      const seconds = Number(element.dataset.time);
      const form = { hour: "2-digit", minute: "2-digit", hour12: false };
      if ("seconds" in element.dataset) form.second = "2-digit";
      if (now - seconds > 20 * 3600 && element.tagName === "TIME") {
        Object.assign(form, { day: "2-digit", month: "short" });
        delete form.second;
      }
      element.textContent = new Date(seconds * 1000).toLocaleString([], form);
    }
    const zone = document.getElementById("zone");
    if (zone) zone.textContent = Intl.DateTimeFormat().resolvedOptions().timeZone || "local time";
  };

  const replace = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    const main = fresh.querySelector("main");
    if (!main) throw new Error("no content");
    for (const details of document.querySelectorAll("details[id]")) {
      const same = main.querySelector("#" + details.id);
      if (same) same.open = details.open;
    }
    const active = document.activeElement;
    const focused = active?.matches("main summary") ? "summary"
      : active?.matches("main a") ? `a[href="${active.getAttribute("href")}"]` : null;
    if (document.title !== fresh.title) {
      document.title = fresh.title;
      const said = (name) => main.querySelector(name)?.textContent ?? "";
      document.getElementById("news").textContent = `${said("h1")}. ${said(".why")} ${said(".next")}`;
    }
    const icon = document.querySelector("link[rel=icon]");
    const freshIcon = fresh.querySelector("link[rel=icon]");
    if (icon && freshIcon) icon.href = freshIcon.href;
    document.querySelector("main").replaceWith(document.importNode(main, true));
    if (focused) document.querySelector("main " + focused)?.focus({ preventScroll: true });
    localise();
  };

  const refresh = async () => {
    const selected = !getSelection().isCollapsed; // somebody is about to copy something
    if (!document.hidden && !selected) {
      try {
        const answer = await fetch("./", { cache: "no-store", signal: AbortSignal.timeout(10000) });
        replace(await answer.text());
      } catch (_) {
        document.getElementById("stale").hidden = false;
      }
    }
    setTimeout(refresh, 1000 * Number(document.querySelector("main").dataset.refresh || 5));
  };

  localise();
  setTimeout(refresh, 1000 * Number(document.querySelector("main").dataset.refresh || 5));
})();
