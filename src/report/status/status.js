'use strict';
// Fetches the page anew, and keeps what is opened, focused, typed and scrolled to. Without it the browser loads it again.
(() => {
  const told = document.getElementById('refreshed');
  const every = 1000 * Number(document.body.dataset.every);
  const byId = (id) => id && document.getElementById(id);
  let since = new Date();
  const clock = (time) => time.toISOString().slice(11, 19) + ' UTC';
  const busy = () => {
    const field = byId('filter');
    const typing = field && document.activeElement === field && field.value !== field.defaultValue;
    return document.hidden || typing || !getSelection().isCollapsed;
  };
  // Where the focus is, as a way that leads there again: what has an id, and which of its elements.
  const focusable = 'a, summary, input, button, [tabindex]';
  const focus = () => {
    const all = [...document.querySelectorAll('#page :is(' + focusable + ')')];
    const at = all.indexOf(document.activeElement);
    if (at < 0) return () => {};
    const label = (element) => element.tagName + (element.id || element.getAttribute('aria-label') || element.textContent);
    const wanted = label(all[at]), nth = all.slice(0, at).filter((other) => label(other) === wanted).length;
    return () => {
      const now = [...document.querySelectorAll('#page :is(' + focusable + ')')];
      const found = now.filter((element) => label(element) === wanted)[nth];
      if (found) found.focus({ preventScroll: true });
    };
  };
  async function refresh() {
    if (busy()) return;
    try {
      const answer = await fetch(location.pathname + location.search, { cache: 'no-store', redirect: 'error' });
      if (!answer.ok) throw new Error(answer.status);
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
      const fresh = page.getElementById('page');
      if (!fresh || busy()) return;
      for (const details of document.querySelectorAll('details[id]')) {
        const same = fresh.querySelector('#' + details.id);
        if (same) same.open = details.open;
      }
      const sideways = [...document.querySelectorAll('.wide')].map((region) => [region.getAttribute('aria-label'), region.scrollLeft]);
      const headline = document.querySelector('h1').textContent;
      const restore = focus(), [x, y] = [scrollX, scrollY];
      document.getElementById('page').replaceWith(document.adoptNode(fresh));
      for (const region of document.querySelectorAll('.wide')) {
        const before = sideways.find(([label]) => label === region.getAttribute('aria-label'));
        if (before) region.scrollLeft = before[1];
      }
      restore();
      scrollTo(x, y);
      document.title = page.title;
      since = new Date();
      const now = document.querySelector('h1').textContent;
      told.className = now === headline ? 'refreshed' : 'refreshed unseen';
      if (now !== headline) told.textContent = now; else if (told.dataset.lost) told.textContent = '';
      delete told.dataset.lost;
    } catch {
      told.dataset.lost = 'yes';
      told.className = 'refreshed notice alarm';
      told.textContent = 'This page could not be refreshed since ' + clock(since) + ': it shows what was so then. Is zoneward there?';
    }
  }
  setInterval(refresh, every);
  document.addEventListener('visibilitychange', refresh);
})();
