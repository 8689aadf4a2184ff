// Keys for reading on: j and k, or the arrows, press the buttons of the tab that is shown.
document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const at = event.target;
  if (at instanceof Element && at.closest('input, textarea, select, [contenteditable], [role=tab], [role=listbox], [role=slider], .js-plotly-plot')) return;
  const step = { j: 'next', ArrowRight: 'next', k: 'previous', ArrowLeft: 'previous' }[event.key];
  if (!step) return;
  for (const tab of ['flips', 'pairs']) {
    const holder = document.getElementById(`${tab}-${step}`);
    if (holder && holder.offsetParent !== null) {
      event.preventDefault();
      (holder.matches('button') ? holder : holder.querySelector('button')).click();
      return;
    }
  }
});

// The chosen tab goes into the page's address.
document.addEventListener('click', (event) => {
  const tab = event.target instanceof Element && event.target.closest('[role=tab][id^="tab-"]');
  const name = tab && tab.id.match(/^tab-([a-z]+)-button$/);
  if (!name) return;
  const at = new URL(location);
  at.searchParams.set('tab', name[1]);
  history.replaceState(null, '', at);
});
