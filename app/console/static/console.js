"use strict";

// What the pages need of a browser. Without it they can be read and filtered; updates need it.

(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const on = (type, handler) => document.addEventListener(type, handler);

  // Times: written in UTC by the server; the reader may switch to local time.

  const CHOICE = "receiver-times";
  const pad = (number) => String(number).padStart(2, "0");

  function localTime(date) {
    const day = `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
    const zone = new Intl.DateTimeFormat(undefined, { timeZoneName: "short" })
      .formatToParts(date)
      .find((part) => part.type === "timeZoneName");
    return `${day} ${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())} ${zone ? zone.value : ""}`;
  }

  function isLocal() {
    try {
      return localStorage.getItem(CHOICE) === "local";
    } catch {
      return false;
    }
  }

  function showTimes(root = document) {
    for (const element of all("time[data-time]", root)) {
      element.dataset.utc ??= element.textContent;
      const local = localTime(new Date(element.dateTime));
      element.textContent = isLocal() ? local : element.dataset.utc;
      element.title = isLocal() ? element.dataset.utc : local;
    }
    for (const button of all("[data-times]")) {
      button.hidden = false;
      button.textContent = isLocal() ? "Local" : "UTC";
      button.setAttribute("aria-label", isLocal() ? "Local times; switch to UTC" : "UTC times; switch to local");
    }
  }

  function switchTimes() {
    try {
      localStorage.setItem(CHOICE, isLocal() ? "utc" : "local");
    } catch {
      return; // without storage times stay in UTC
    }
    showTimes();
  }

  // Copying.

  async function copy(button) {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
    } catch {
      const field = document.createElement("textarea"); // on plain http there is no clipboard
      field.value = button.dataset.copy;
      field.className = "hidden";
      (button.closest("dialog") ?? document.body).append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
      button.focus();
    }
    button.dataset.copied = "";
    button.setAttribute("aria-label", "Copied");
    setTimeout(() => {
      delete button.dataset.copied;
      button.setAttribute("aria-label", `Copy ${button.dataset.copy}`);
    }, 1500);
  }

  on("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.copy !== undefined) copy(button);
    if (button.dataset.times !== undefined) switchTimes();
    if (isOld && button.hasAttribute("command")) obey(button);
  });

  // Dialogs. What has to be typed is checked by the server too. Browsers open and close them by themselves, without
  // this script, since 2025: Chromium 135, Firefox 144, Safari 26.2.

  const isOld = !("commandForElement" in HTMLButtonElement.prototype);

  function obey(button) {
    const dialog = document.getElementById(button.getAttribute("commandfor"));
    if (button.getAttribute("command") === "close") dialog.close();
    else dialog.showModal();
  }

  on("submit", (event) => {
    const form = event.target;
    const typed = form.querySelector("[data-expected]");
    if (typed) {
      typed.setCustomValidity(typed.value.trim() === typed.dataset.expected ? "" : `Type ${typed.dataset.expected}`);
      if (!form.reportValidity()) {
        event.preventDefault();
        return;
      }
    }
    if (form.method !== "post") return;
    setTimeout(() => all("button:not([type])", form).forEach((each) => (each.disabled = true)));
    setTimeout(allowForms, 30000); // a reader who stops it is not noticed
  });

  function allowForms() {
    for (const button of all("form button:disabled")) button.disabled = false;
  }

  on("formdata", ({ target, formData }) => {
    if (target.dataset.filters === undefined) return;
    for (const [name, value] of [...formData]) if (value === "") formData.delete(name); // so that URLs stay short
  });

  on("input", (event) => {
    if (event.target.dataset.expected !== undefined) event.target.setCustomValidity("");
  });

  on("change", (event) => {
    if (event.target.matches("[data-filters] select")) event.target.form.requestSubmit();
  });

  addEventListener("pageshow", (event) => {
    allowForms();
    if (event.persisted) connect();
  });

  // Updates: the stream says that something has changed, and the regions of the page that are marked are read anew.

  // The HTML of each region as the server sent it.
  const latest = new Map(all("[data-live][id]").map((region) => [region.id, region.innerHTML]));
  let refreshing = null;
  let again = false;
  let isBehind = false; // a region was in use, and so is older than what was read

  function isBusy(region) {
    const active = document.activeElement;
    const isTyping = region.contains(active) && active.matches("input, select, textarea");
    const selection = getSelection();
    const isSelecting = selection && !selection.isCollapsed && region.contains(selection.anchorNode);
    const isPlaying = all("video, audio", region).some((media) => !media.paused);
    const isPressed = region.matches(":active"); // a click on what is gone at its end is none
    const isAsked = region.querySelector("dialog[open], form button:disabled") !== null; // its answer is not here yet
    return isTyping || isSelecting || isPlaying || isPressed || isAsked;
  }

  for (const type of ["close", "focusout", "pause", "pointerup"]) {
    document.addEventListener(type, () => isBehind && refresh(), true); // some of them do not bubble
  }

  // What has the focus is found again by what it does, not by its place: the rows of lists move.

  function purpose(element) {
    const { href, form, dataset, ariaLabel } = element;
    const dialog = element.getAttribute("commandfor");
    return [element.localName, element.closest("[id]").id, href, form?.action, dialog, dataset.copy ?? ariaLabel].join();
  }

  function replaceRegion(region, html) {
    const focused = region.contains(document.activeElement) ? document.activeElement : null;
    const wanted = focused && purpose(focused);
    const alike = () => all("*", region).filter((each) => purpose(each) === wanted);
    const place = focused ? alike().indexOf(focused) : -1;
    const opened = all("details[open]", region).map((each) => each.closest("[id]").id);
    const scrolled = all(".table, pre", region).map((each) => [each.scrollLeft, each.scrollTop]);
    region.innerHTML = html;
    for (const id of opened) {
      const found = document.getElementById(id);
      const details = found?.matches("details") ? found : found?.querySelector("details");
      if (details) details.open = true;
    }
    showTimes(region);
    watchVideos(region);
    load(region);
    all(".table, pre", region).forEach((each, index) => each.scrollTo(...(scrolled[index] ?? [0, 0])));
    if (!focused) return;
    const found = alike()[place] ?? document.getElementById("main");
    found.focus({ preventScroll: true }); // the reader may be elsewhere by now
  }

  async function readAgain() {
    const signal = AbortSignal.timeout(30000);
    const response = await fetch(location.href, { credentials: "same-origin", cache: "no-store", signal });
    if (response.status === 401 || response.redirected) {
      location.reload(); // leads to the sign-in: the session has ended
      return;
    }
    if (!response.ok) throw new Error(`status ${response.status}`);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    isBehind = false;
    for (const region of all("[data-live][id]")) {
      const html = page.getElementById(region.id)?.innerHTML;
      if (html === undefined || html === latest.get(region.id)) continue;
      if (isBusy(region)) {
        isBehind = true;
        continue;
      }
      latest.set(region.id, html);
      replaceRegion(region, html);
    }
  }

  async function refresh() {
    if (refreshing) {
      again = true;
      return;
    }
    do {
      again = false;
      refreshing = readAgain();
      try {
        await refreshing;
      } catch {
        show("lost"); // the stream connects again, and with it this is repeated
      } finally {
        refreshing = null;
      }
    } while (again && !document.hidden);
  }

  const indicator = document.querySelector("[data-stream]");
  const WORDS = { live: "Live", lost: "Connection lost, trying again…", connecting: "Connecting…" };
  let source = null;
  let timer = null;
  let pause = 1000;

  function show(state) {
    const element = indicator?.querySelector("[data-stream-state]");
    if (!element || element.dataset.state === state) return;
    element.dataset.state = state;
    element.textContent = WORDS[state];
  }

  function disconnect() {
    clearTimeout(timer);
    source?.close();
    source = null;
  }

  function lose() {
    disconnect();
    show("lost");
    timer = setTimeout(async () => {
      await refresh(); // leads to the sign-in where the session has ended
      connect();
    }, pause);
    pause = Math.min(pause * 2, 15000);
  }

  function listen() {
    clearTimeout(timer);
    timer = setTimeout(lose, 45000); // a message comes every 15 s: a silent connection is none, which nobody tells
  }

  function connect() {
    disconnect();
    if (!indicator || document.hidden) return; // a tab in the background costs nothing
    source = new EventSource(indicator.dataset.stream);
    source.onerror = lose;
    source.addEventListener("changed", () => {
      pause = 1000;
      show("live");
      listen();
      refresh();
    });
    listen();
  }

  // Parts of a page that take longer than the page itself.

  async function load(root = document) {
    for (const element of all("[data-load]", root)) {
      element.setAttribute("aria-busy", "true");
      try {
        const response = await fetch(element.dataset.load, { credentials: "same-origin" });
        if (!response.ok || response.redirected) throw new Error(`status ${response.status}`);
        element.innerHTML = await response.text();
        showTimes(element);
      } catch {
        element.textContent = "not known";
      }
      element.setAttribute("aria-busy", "false");
    }
  }

  // A picture that can't be loaded gives way to its placeholder; it may have failed before this script ran.

  function noteGone(media) {
    const place = media instanceof HTMLElement ? media.closest("[data-media]") : null;
    if (place) place.dataset.media = "gone";
  }

  document.addEventListener("error", (event) => noteGone(event.target), true);
  for (const image of all("[data-media] img")) if (image.complete && !image.naturalWidth) noteGone(image);
  for (const media of all("[data-media] :is(video, audio)")) if (media.error) noteGone(media);

  // A video is only asked for its first picture once it comes near the window: browsers have no `loading` for it.

  const nearby = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        nearby.unobserve(target);
        target.src = `${target.dataset.src}#t=0.1`;
      }
    },
    { rootMargin: "300px" },
  );

  function watchVideos(root = document) {
    for (const video of all("video[data-src]", root)) nearby.observe(video);
  }

  // A link may carry the token behind "#", which no server sees; it fills the form of the sign-in.

  if (location.hash.startsWith("#token=")) {
    const field = document.querySelector("[data-token]");
    if (field) field.value = decodeURIComponent(location.hash.slice("#token=".length));
    history.replaceState(null, "", location.pathname + location.search);
  }

  // On a phone the filters take up the whole screen, so they are folded while none is set.

  if (matchMedia("(max-width: 40rem)").matches) {
    for (const box of all("[data-filter-box]:not([data-used])")) box.open = false;
  }

  showTimes();
  watchVideos();
  load();
  if (indicator) {
    show("connecting");
    connect();
    on("visibilitychange", () => (document.hidden ? disconnect() : connect()));
    addEventListener("pagehide", disconnect);
  }
})();
