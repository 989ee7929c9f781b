"use strict";
// The node sends the content of <main> anew when something has changed. This script replaces what
// differs, and nothing else: so the place in the document, the focus, marked text and what is
// unfolded stay as they are.
(() => {
  const silence = 25000; // milliseconds; the node sends something every 10 s
  const pause = 10000; // before another try when the node has refused
  const main = document.getElementById("main");
  const live = document.getElementById("live");
  let stream = null;
  let timer = 0;
  let heard = Date.now(); // of the node
  let begun = heard; // the present try

  function say(state, text) {
    if (live.dataset.state !== state) live.dataset.state = state;
    if (live.textContent !== text) live.textContent = text;
  }

  function lost() {
    const at = new Date(heard).toISOString().slice(11, 19);
    say("off", "No updates from the node: this is how it was at " + at + " UTC");
  }

  // attributes makes those of an element those of another. Whether it is unfolded is up to the user.
  function attributes(was, is) {
    for (const a of [...was.attributes]) {
      if (!is.hasAttribute(a.name) && a.name !== "open") was.removeAttribute(a.name);
    }
    for (const a of is.attributes) {
      if (was.getAttribute(a.name) !== a.value) was.setAttribute(a.name, a.value);
    }
  }

  const keyOf = (node) => (node.dataset && node.dataset.key) || "";

  // children makes those of an element those of another. Those with a key are found again by it,
  // others by their place.
  function children(was, is) {
    const keys = new Set([...is.children].map(keyOf));
    const known = new Map();
    for (const child of [...was.children]) {
      const key = keyOf(child);
      if (key && (!keys.has(key) || known.has(key))) child.remove();
      else if (key) known.set(key, child);
    }
    let at = was.firstChild;
    for (const next of [...is.childNodes]) {
      const key = keyOf(next);
      let same = key ? known.get(key) : null;
      known.delete(key);
      if (!key && at && !keyOf(at) && at.nodeName === next.nodeName) same = at;
      if (!same) {
        was.insertBefore(document.importNode(next, true), at);
        continue;
      }
      if (same === at) at = at.nextSibling;
      else was.insertBefore(same, at);
      if (same.nodeType === Node.ELEMENT_NODE) {
        attributes(same, next);
        children(same, next);
      } else if (same.data !== next.data) {
        same.data = next.data;
      }
    }
    while (at) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    }
  }

  function update(message) {
    const content = JSON.parse(message.data);
    const focused = document.activeElement;
    children(main, new DOMParser().parseFromString(content.Main, "text/html").body);
    if (document.activeElement !== focused && focused.isConnected) focused.focus({ preventScroll: true });
    document.title = content.Title;
    heard = Date.now();
    say("on", "Live");
  }

  function connect() {
    disconnect();
    begun = Date.now();
    stream = new EventSource("page/updates");
    stream.onmessage = update;
    stream.onerror = () => {
      lost();
      if (stream.readyState !== EventSource.CLOSED) return; // it tries again by itself
      disconnect();
      timer = setTimeout(connect, pause);
    };
  }

  function disconnect() {
    clearTimeout(timer);
    if (stream) stream.close();
    stream = null;
  }

  // A page that nobody sees gets no updates: the node has less to do, and a browser opens only six
  // connections to it.
  function seen() {
    if (document.visibilityState === "visible") connect();
    else disconnect();
  }

  document.addEventListener("visibilitychange", seen);
  window.addEventListener("pagehide", disconnect);
  window.addEventListener("pageshow", (event) => event.persisted && seen());
  setInterval(() => {
    if (!stream || Date.now() - Math.max(heard, begun) < silence) return;
    lost();
    connect();
  }, 5000);
  say("none", "Connecting");
  seen();
})();
