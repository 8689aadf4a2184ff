"use strict";
// The page's own script. Text from models and prompts enters the document only as text nodes, never as markup.
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);

  // Figures: drawn when they come into view, so that a page with many opens at once.
  const figures = read("figure-data");
  const config = { responsive: true, displaylogo: false, displayModeBar: false };
  const draw = (host) => {
    const figure = figures[host.dataset.figure];
    Plotly.newPlot(host, figure.data, figure.layout, config);
  };
  const hosts = document.querySelectorAll("[data-figure]");
  if ("IntersectionObserver" in window) {
    const watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) {
          watcher.unobserve(entry.target);
          draw(entry.target);
        }
      }
    }, { rootMargin: "600px" });
    hosts.forEach((host) => watcher.observe(host));
    window.addEventListener("beforeprint", () => hosts.forEach((host) => { if (!host.firstChild) draw(host); }));
  } else {
    hosts.forEach(draw);
  }

  // Navigation: the section that is being read is marked.
  const links = new Map([...document.querySelectorAll("nav.toc a")].map((link) => [link.hash.slice(1), link]));
  const sections = [...document.querySelectorAll("section[id]")];
  const mark = () => {
    let here = sections[0];
    for (const section of sections) {
      if (section.getBoundingClientRect().top < window.innerHeight * 0.35) here = section;
    }
    links.forEach((link, id) => link.classList.toggle("here", here !== undefined && id === here.id));
  };
  window.addEventListener("scroll", mark, { passive: true });
  mark();

  // Samples.
  const host = document.getElementById("sample-browser");
  if (!host) return;
  const data = read("sample-data");
  const PAGE = 25;
  const make = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "style") element.style.setProperty("--c", value);
      else element.setAttribute(key, value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  };
  const words = (text) => text.replaceAll("_", " ");
  const number = (value) => (100 * value).toFixed(0);

  const [ASK, CATEGORY, EXPECTED, TAGS, ANSWERS] = [0, 1, 2, 3, 4];
  const [TEXT, MODE, CUT, TOKENS, SCORES, SPANS] = [0, 1, 2, 3, 4, 5];
  const controls = {};
  const state = { q: "", category: "", model: "", mode: "", pair: "", change: "", sort: "", page: 0, open: null };
  const modelIndex = (name) => data.models.indexOf(name);

  const select = (key, label, options) => {
    const element = make("select", { "aria-label": label });
    for (const [value, text] of options) element.append(make("option", { value }, text));
    controls[key] = element;
    element.addEventListener("change", () => { state[key] = element.value; state.page = 0; update(); });
    return make("label", {}, label, element);
  };
  const changes = [["", "anything"], ["mode", "the mode differs"]];
  data.evaluators.forEach((name, index) => {
    changes.push([`up:${index}`, `${words(name)} rises`], [`down:${index}`, `${words(name)} falls`]);
  });
  const sorts = [["", "order of the run"]];
  data.evaluators.forEach((name, index) => {
    sorts.push([`gain:${index}`, `largest gain in ${words(name)}`], [`loss:${index}`, `largest loss in ${words(name)}`]);
  });
  const search = make("input", { type: "search", placeholder: "words in prompts and answers", "aria-label": "Search" });
  let timer = 0;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => { state.q = search.value; state.page = 0; update(); }, 180);
  });
  controls.q = search;
  const bar = make("div", { class: "controls" },
    make("label", {}, "search", search),
    select("category", "category", [["", "all"], ...data.categories.map((name, index) => [String(index), words(name)])]),
    select("mode", "mode", [["", "any"], ...data.modes.map((name, index) => [String(index), words(name)])]),
    select("model", "of", [["", "any model"], ...data.models.map((name) => [name, name])]));
  if (data.pairs.length) {
    bar.append(
      select("pair", "between", data.pairs.map(([later, earlier], index) => [String(index), `${earlier} → ${later}`])),
      select("change", "changed", changes),
      select("sort", "sorted by", sorts));
    state.pair = "0";
  }
  const rows = make("ol", { class: "rows" });
  rows.style.setProperty("--models", String(data.models.length));
  const status = make("span", { role: "status" });
  const back = make("button", { type: "button" }, "← earlier");
  const forth = make("button", { type: "button" }, "later →");
  back.addEventListener("click", () => { state.page -= 1; update(); });
  forth.addEventListener("click", () => { state.page += 1; update(); });
  host.append(bar, make("div", { class: "pager" }, back, forth, status), rows);

  const value = (row, model, evaluator) => {
    const answer = row[ANSWERS][model];
    const score = answer === null ? null : answer[SCORES][evaluator];
    return score === null || typeof score[0] !== "number" ? null : score[0];
  };
  const difference = (row, evaluator) => {
    const [later, earlier] = data.pairs[Number(state.pair)].map(modelIndex);
    const [a, b] = [value(row, later, evaluator), value(row, earlier, evaluator)];
    return a === null || b === null ? null : a - b;
  };
  const changed = (row) => {
    if (!state.change) return true;
    const [later, earlier] = data.pairs[Number(state.pair)].map(modelIndex);
    const [a, b] = [row[ANSWERS][later], row[ANSWERS][earlier]];
    if (a === null || b === null) return false;
    if (state.change === "mode") return a[MODE] !== b[MODE];
    const [direction, evaluator] = state.change.split(":");
    const step = difference(row, Number(evaluator));
    return step !== null && (direction === "up" ? step > 0 : step < 0);
  };
  let haystacks = null;
  const haystack = (index) => {
    haystacks ??= data.rows.map((row) =>
      [...row[ASK].map((turn) => turn[1]), ...row[ANSWERS].map((answer) => answer?.[TEXT] ?? "")].join("\n").toLowerCase());
    return haystacks[index];
  };
  const chosen = () => {
    const wanted = state.q.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const model = state.model ? modelIndex(state.model) : -1;
    const found = [];
    data.rows.forEach((row, index) => {
      if (state.category !== "" && row[CATEGORY] !== Number(state.category)) return;
      if (state.mode !== "") {
        const asked = model < 0 ? row[ANSWERS] : [row[ANSWERS][model]];
        if (!asked.some((answer) => answer !== null && answer[MODE] === Number(state.mode))) return;
      } else if (model >= 0 && row[ANSWERS][model] === null) {
        return;
      }
      if (!changed(row)) return;
      if (wanted.length && !wanted.every((word) => haystack(index).includes(word))) return;
      found.push(index);
    });
    if (state.sort) {
      const [direction, evaluator] = state.sort.split(":");
      const sign = direction === "gain" ? -1 : 1;
      const key = new Map(found.map((index) => [index, difference(data.rows[index], Number(evaluator))]));
      const moved = found.filter((index) => key.get(index) !== null);
      moved.sort((a, b) => sign * (key.get(a) - key.get(b)) || a - b);
      return moved;
    }
    return found;
  };

  const highlighted = (answer) => {
    // Spans count characters as Python does: code points, not UTF-16 units.
    const characters = Array.from(answer[TEXT]);
    const why = Array.from({ length: characters.length }, () => null);
    for (const [start, end, evaluator, reason] of answer[SPANS]) {
      const note = `${words(data.evaluators[evaluator])}: ${data.strings[reason]}`;
      for (let place = start; place < Math.min(end, characters.length); place += 1) {
        why[place] = why[place] === null ? note : why[place].includes(note) ? why[place] : `${why[place]}\n${note}`;
      }
    }
    const parts = [];
    let from = 0;
    for (let place = 1; place <= characters.length; place += 1) {
      if (place < characters.length && why[place] === why[from]) continue;
      const piece = characters.slice(from, place).join("");
      parts.push(why[from] === null ? piece : make("mark", { title: why[from] }, piece));
      from = place;
    }
    return characters.length ? parts : [make("span", { class: "none" }, "(empty)")];
  };
  const card = (row, model) => {
    const answer = row[ANSWERS][model];
    const element = make("article", { class: "answer", style: data.colours[model] });
    if (answer === null) {
      element.append(make("h4", {}, data.models[model]), make("p", { class: "none" }, "no answer to this prompt"));
      return element;
    }
    const length = `${answer[TOKENS]} tokens${answer[CUT] ? ", cut at the limit" : ""}`;
    element.append(make("h4", {}, data.models[model], make("span", { class: "chip", style: data.modeColours[answer[MODE]] },
      words(data.modes[answer[MODE]]))));
    element.append(make("div", { class: "text" }, ...highlighted(answer)));
    const table = make("table", { class: "scores" });
    answer[SCORES].forEach((score, index) => {
      if (score === null) return;
      const told = typeof score[0] === "number" ? number(score[0]) : "–";
      const reason = typeof score[0] === "number" ? data.strings[score[1]] : `not scored: ${data.strings[score[1]]}`;
      const muted = data.uninformative.includes(data.evaluators[index]);
      table.append(make("tr", muted ? { class: "muted" } : {},
        make("td", {}, words(data.evaluators[index]) + (muted ? " (uninformative)" : "")), make("td", {}, told),
        make("td", { class: "why" }, reason)));
    });
    element.append(table, make("p", { class: "small" }, length));
    return element;
  };
  const detail = (row) => {
    const pane = make("div", { class: "detail-pane" });
    if (row[ASK].length > 1) {
      for (const [who, text] of row[ASK]) pane.append(make("p", { class: "turn" }, make("span", { class: "who" }, who), text));
    }
    const tags = [words(data.categories[row[CATEGORY]]), `expected: ${words(data.expected[row[EXPECTED]])}`, ...row[TAGS]];
    pane.append(make("p", {}, ...tags.flatMap((tag) => [make("span", { class: "tag" }, tag), " "])));
    pane.append(make("div", { class: "answers" }, ...data.models.map((_, model) => card(row, model))));
    return pane;
  };
  const line = (index) => {
    const row = data.rows[index];
    const item = make("li", { class: state.open === index ? "row open" : "row" });
    const chips = row[ANSWERS].map((answer, model) => (answer === null
      ? make("span", { class: "chip" }, `${data.models[model]} –`)
      : make("span", { class: "chip", style: data.modeColours[answer[MODE]], title: data.models[model] },
        words(data.modes[answer[MODE]]))));
    const ask = row[ASK][row[ASK].length - 1][1];
    const button = make("button", { type: "button", "aria-expanded": String(state.open === index) },
      make("span", { class: "number" }, String(index + 1)),
      make("span", { class: "ask" }, state.open === index ? ask : ask.slice(0, 300)),
      make("span", { class: "chips" }, ...chips));
    button.addEventListener("click", () => { state.open = state.open === index ? null : index; update(index); });
    item.append(button);
    if (state.open === index) item.append(detail(row));
    return item;
  };

  const remember = () => {
    const kept = new URLSearchParams();
    for (const key of ["q", "category", "mode", "model", "pair", "change", "sort"]) {
      if (state[key] && !(key === "pair" && state[key] === "0")) kept.set(key, state[key]);
    }
    if (state.page) kept.set("page", String(state.page));
    if (state.open !== null) kept.set("open", String(state.open + 1));
    const text = kept.toString();
    if (text || location.hash.startsWith("#samples?")) history.replaceState(null, "", text ? `#samples?${text}` : "#samples");
  };
  const recall = () => {
    if (!location.hash.startsWith("#samples?")) return false;
    const kept = new URLSearchParams(location.hash.slice("#samples?".length));
    for (const key of ["q", "category", "mode", "model", "pair", "change", "sort"]) {
      if (kept.has(key) && controls[key]) { state[key] = kept.get(key); controls[key].value = state[key]; }
      if (controls[key] && controls[key].value !== state[key]) state[key] = controls[key].value = key === "pair" ? "0" : "";
    }
    state.page = Math.max(0, Number.parseInt(kept.get("page") ?? "0", 10) || 0);
    const open = Number.parseInt(kept.get("open") ?? "", 10) - 1;
    state.open = open >= 0 && open < data.rows.length ? open : null;
    return true;
  };
  function update(focus = null) {
    const found = chosen();
    const last = Math.max(0, Math.ceil(found.length / PAGE) - 1);
    state.page = Math.min(Math.max(0, state.page), last);
    const start = state.page * PAGE;
    const shown = found.slice(start, start + PAGE);
    const head = make("li", { class: "row head" }, make("span"), make("span", {}, "prompt"), make("span", { class: "chips" },
      ...data.models.map((name, model) => make("span", { class: "model", style: data.colours[model], title: name }, name))));
    rows.replaceChildren(head, ...shown.map(line));
    if (!shown.length) rows.append(make("li", { class: "empty" }, "No prompt fits these filters."));
    back.disabled = state.page === 0;
    forth.disabled = state.page === last;
    const range = found.length ? `${start + 1}–${start + shown.length} of ` : "";
    status.textContent = `${range}${found.length.toLocaleString("en")} prompts (${data.rows.length.toLocaleString("en")} in all)`;
    if (focus !== null) rows.children[shown.indexOf(focus) + 1]?.querySelector("button").focus({ preventScroll: true });
    remember();
  }
  if (recall()) document.getElementById("samples").scrollIntoView();
  update();
})();
