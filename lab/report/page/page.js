// SPDX-License-Identifier: MIT
// What tests and kernels wrote is set as text (textContent) and nowhere as markup.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const RED = "fslnu";
  const several = $("differ") !== null;

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== undefined && value !== false) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  };

  // -- the theme ------------------------------------------------------------------------------

  const themes = ["auto", "light", "dark"];
  const remember = (name) => { try { localStorage.setItem("lab-theme", name); } catch { /* no storage */ } };
  const remembered = () => { try { return localStorage.getItem("lab-theme"); } catch { return null; } };
  const paint = (name) => {
    document.documentElement.dataset.theme = name;
    $("theme").textContent = `Theme: ${name}`;
  };
  const nextTheme = () => {
    const name = themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % themes.length];
    paint(name);
    remember(name);
  };
  paint(themes.includes(remembered()) ? remembered() : "auto");
  $("theme").addEventListener("click", nextTheme);
  $("help").addEventListener("click", () => $("keys").showModal());

  // -- the filter -----------------------------------------------------------------------------

  const matrix = $("matrix");
  const groups = [];
  if (matrix) {
    for (const body of matrix.tBodies) {
      const button = body.querySelector(".file button");
      const rows = [...body.querySelectorAll("tr.t")];
      groups.push({ body, button, rows: rows.map((row) => [row, Number(row.dataset.row)]) });
      button.addEventListener("click", () => unfold(body, button, !body.classList.contains("open")));
    }
  }
  const unfold = (body, button, open) => {
    body.classList.toggle("open", open);
    button.setAttribute("aria-expanded", String(open));
  };

  const cellsOf = (row) => data.kernels.map((_, k) => data.cells[`t-${row}-${k}`]).filter(Boolean);
  const lowered = (texts) => texts.filter(Boolean).join("\n").toLowerCase();
  let words = null, outputs = null;
  const haystack = (within) => {
    words ??= data.tests.map((id, row) => lowered([id, ...cellsOf(row).map((cell) => cell.w)]));
    if (!within) return words;
    outputs ??= data.tests.map((_, row) =>
      `${words[row]}\n${lowered(cellsOf(row).flatMap((cell) => [cell.o && cell.o.x, cell.l && cell.l.x, ...(cell.d ?? []).map((one) => one[1])]))}`);
    return outputs;
  };

  const chips = [...document.querySelectorAll(".chip")];
  const filter = () => {
    const asked = $("query").value.toLowerCase().split(/\s+/).filter(Boolean);
    const letters = chips.filter((chip) => chip.getAttribute("aria-pressed") === "true")
      .map((chip) => chip.dataset.letter);
    const kernel = several ? $("kernel").value : "";
    const differ = several && $("differ").checked;
    const on = Boolean(asked.length || letters.length || kernel || differ);
    const texts = asked.length ? haystack($("within").checked) : [];
    const matches = (row) => {
      const all = data.verdicts[row];
      const seen = kernel === "" ? all : all[kernel];
      return asked.every((word) => texts[row].includes(word))
        && (kernel === "" || seen !== "-")
        && (!letters.length || letters.some((letter) => seen.includes(letter)))
        && (!differ || new Set(all.replaceAll("-", "")).size > 1);
    };
    let shown = 0;
    for (const { body, button, rows } of groups) {
      let some = 0;
      for (const [row, number] of rows) {
        const match = !on || matches(number);
        if (row.hidden === match) row.hidden = !match;
        some += match;
      }
      shown += some;
      if (body.hidden !== (some === 0)) body.hidden = some === 0;
      button.setAttribute("aria-expanded", String(on || body.classList.contains("open")));
    }
    if (matrix) {
      matrix.classList.toggle("filtering", on);
      $("nothing").hidden = shown > 0;
    }
    $("shown").textContent = on ? `${shown} of ${data.tests.length}` : String(data.tests.length);
    stop(matrix);
  };
  let due = 0;
  const soon = () => { cancelAnimationFrame(due); due = requestAnimationFrame(filter); };
  $("query").addEventListener("input", soon);
  for (const id of ["kernel", "differ", "within"]) $(id)?.addEventListener("change", soon);
  for (const chip of chips) {
    chip.addEventListener("click", () => {
      chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
      soon();
    });
  }
  const clear = () => {
    $("query").value = "";
    for (const chip of chips) chip.setAttribute("aria-pressed", "false");
    if (several) { $("kernel").value = ""; $("differ").checked = false; }
    filter();
  };
  let allOpen = false;
  $("unfold").addEventListener("click", () => {
    allOpen = !allOpen;
    for (const { body, button } of groups) unfold(body, button, allOpen);
    $("unfold").textContent = `${allOpen ? "Close" : "Open"} all ${$("unfold").dataset.words}`;
  });

  const bar = document.querySelector(".filter");
  new ResizeObserver(() => {
    document.documentElement.style.setProperty("--filter", `${bar.offsetHeight}px`);
  }).observe(bar);

  // -- tables by the arrow keys: one cell of each is in the order of the tab key --------------

  const ways = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const target = (cell) => cell && cell.querySelector("a, button");
  const visible = (row) => row.offsetParent !== null || row.getClientRects().length > 0;
  const stop = (table) => {
    if (!table) return;
    const now = table.querySelector('[tabindex="0"]');
    if (now && visible(now)) return;
    if (now) now.tabIndex = -1;
    const first = [...table.querySelectorAll("tbody a, tbody button")].find(visible);
    if (first) first.tabIndex = 0;
  };
  const fileOf = (from) => {
    const button = from.closest("tbody")?.querySelector(".file button");
    return button === from ? null : button;
  };
  const step = (table, from, [down, right]) => {
    let cell = from.closest("td, th");
    if (right) {
      do { cell = right > 0 ? cell.nextElementSibling : cell.previousElementSibling; } while (cell && !target(cell));
      return target(cell) || (right < 0 ? fileOf(from) : null);
    }
    const at = cell.cellIndex;
    const rows = table.rows;
    for (let n = cell.parentNode.rowIndex + down; n >= 0 && n < rows.length; n += down) {
      // Below the name of a file are names of tests, which open nothing: on to their first verdict.
      const found = target(rows[n].cells[at]) || (at === 0 ? target(rows[n]) : null);
      if (found && visible(found)) return found;
    }
    return null;
  };
  for (const table of document.querySelectorAll(".grid")) {
    stop(table);
    table.addEventListener("keydown", (event) => {
      const way = ways[event.key];
      if (!way || event.altKey || event.ctrlKey || event.metaKey) return;
      const next = step(table, event.target, way);
      event.preventDefault();
      event.stopPropagation();
      if (next) next.focus();
    });
    table.addEventListener("focusin", (event) => {
      const old = table.querySelector('[tabindex="0"]');
      if (old && old !== event.target) old.tabIndex = -1;
      event.target.tabIndex = 0;
    });
  }

  // -- details ---------------------------------------------------------------------------------

  const panel = $("panel");
  let opener = null, current = "";
  const address = /^#?([tpiek])-(\d+)(?:-(\d+))?$/;
  const counted = (number) => number.toLocaleString("en");

  const facts = (pairs) => {
    const list = make("dl");
    for (const [key, value] of pairs) list.append(make("dt", {}, key), make("dd", {}, value));
    return list;
  };
  const fold = (text, lines = []) => {
    const block = make("pre", { tabindex: 0 });
    const bad = new Set(lines.map((one) => one.trim()));
    if (!bad.size) { block.append(text); return block; }
    for (const one of text.split("\n")) {
      block.append(bad.has(one.trim()) ? make("mark", {}, one) : one, "\n");
    }
    return block;
  };
  const evidence = (title, part, lines) => {
    const parts = [make("h3", {}, title)];
    if (!part) return [...parts, make("p", { class: "quiet" }, "none")];
    if (part.x) parts.push(fold(part.x, lines));
    const whole = part.h ? make("a", { href: part.h }, part.f) : part.f;
    const where = make("p", { class: "quiet" }, part.m ? `the whole, ${counted(part.n)} bytes, is in ` : "from ", whole,
      `, byte ${counted(part.a)} to ${counted(part.a + part.n)}`);
    if (part.e) where.prepend(`${part.e}; `);
    return [...parts, where];
  };
  const hang = (run) => run.z ? evidence("Where it hung", run.z) : [];
  const badges = (row, chosen) => {
    const list = make("div", { class: "badges" });
    for (let k = 0; k < data.kernels.length; k++) {
      const cell = data.cells[`t-${row}-${k}`];
      if (!cell || (data.badges && k !== chosen && !data.badges.includes(data.verdicts[row][k]))) continue;
      list.append(make("a", {
        class: `badge b-${data.verdicts[row][k]}`, href: `#t-${row}-${k}`,
        "aria-current": k === chosen ? "true" : undefined,
      }, `${cell.v} `, make("span", {}, data.kernels[k].name)));
    }
    return list;
  };
  const again = (line) => {
    const button = make("button", { type: "button" }, "Copy");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(line);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(button.previousElementSibling);
        button.textContent = "Selected";
      }
    });
    return make("div", { class: "again" }, make("code", {}, line), button);
  };

  const showTest = (row, k) => {
    const cell = data.cells[`t-${row}-${k}`];
    const kernel = data.kernels[k];
    const guest = kernel.guests?.[cell.g];
    const parts = [badges(row, k)];
    const pairs = [["verdict", cell.v]];
    if (cell.w) pairs.push(["why", cell.w]);
    if (cell.s !== undefined) pairs.push(["took", `${cell.s.toFixed(2)} s`]);
    if (guest) pairs.push(["ran in", `${guest.name}, at ${cell.b.toFixed(1)} s`]);
    if (cell.q) pairs.push(["asked for", cell.q]);
    if (cell.i) pairs.push(["issues", cell.i.map((one) => `#${one}`).join(" ")]);
    parts.push(facts(pairs));
    if (cell.r) parts.push(make("h3", {}, "Run it again"), again(cell.r));
    if (cell.t) {
      parts.push(make("h3", {}, `Subtests (${counted(cell.tn)})`));
      parts.push(fold(cell.t.map((one) => one.filter(Boolean).join("  ")).join("\n")));
    }
    if (cell.u) {
      parts.push(make("h3", {}, `Each of ${cell.u.length} runs`));
      cell.u.forEach((run, n) => parts.push(make("details", {},
        make("summary", {}, `${n + 1}: ${run.v}, ${run.s.toFixed(2)} s${run.w ? `, ${run.w}` : ""}`),
        ...hang(run), ...evidence("Output", run.o), ...evidence("Kernel log", run.l, run.c))));
    } else if (cell.d) {
      for (const [title, text] of cell.d) parts.push(make("h3", {}, title), fold(text));
    } else {
      parts.push(...hang(cell), ...evidence("Output", cell.o), ...evidence("Kernel log", cell.l, cell.c));
    }
    if (guest) parts.push(...guestFiles([guest]));
    return [data.tests[row], kernel.sub ? `${kernel.name}: ${kernel.sub}` : kernel.name, parts];
  };
  const guestFiles = (guests) => guests.flatMap((guest) => {
    const links = make("p");
    for (const [name, href] of guest.files) links.append(make("a", { href }, name), " ");
    return [make("h3", {}, guest.name), make("p", { class: "quiet" }, guest.text), links];
  });
  const links = (addresses) => [make("h3", {}, "Described in"), make("ul", {},
    ...addresses.map((href) => make("li", {}, make("a", { href, rel: "noreferrer" }, href))))];
  const showKernel = (k) => {
    const kernel = data.kernels[k];
    const parts = [facts(kernel.facts)];
    if (kernel.said.length) parts.push(make("h3", {}, kernel.heading ?? "Said of it"), fold(kernel.said.join("\n")));
    if (kernel.links) parts.push(...links(kernel.links));
    parts.push(...guestFiles(kernel.guests ?? []));
    if (kernel.guests?.length === 0) parts.push(make("p", { class: "quiet" }, "No guest came up."));
    return [kernel.name, kernel.sub ?? "kernel", parts];
  };
  const showOther = (key) => {
    const cell = data.cells[key];
    const parts = [facts(cell.facts)];
    for (const [title, text] of cell.blocks ?? []) parts.push(make("h3", {}, title), fold(text));
    if (cell.tests) {
      const list = make("ul");
      for (const row of cell.tests) {
        const test = data.cells[`t-${row}-${cell.kernel}`];
        if (test) list.append(make("li", {}, make("a", { href: `#t-${row}-${cell.kernel}` }, data.tests[row]), ` ${test.v}`));
      }
      parts.push(make("h3", {}, "Tests"), list.children.length ? list : make("p", { class: "quiet" }, "this run does not say which"));
    }
    return [cell.title, data.kernels[cell.kernel].name, parts];
  };

  const open = (key) => {
    const found = address.exec(key);
    if (!found) return false;
    const [, kind, row, column] = found;
    const known = kind === "k" ? data.kernels[row] : data.cells[`${kind}-${row}-${column}`];
    if (!known) return false;
    const [title, sub, parts] = kind === "t" ? showTest(Number(row), Number(column))
      : kind === "k" ? showKernel(Number(row)) : showOther(`${kind}-${row}-${column}`);
    const close = make("button", { type: "button", title: "Close (Esc)" }, "Close");
    close.addEventListener("click", shut);
    const head = make("div", {}, make("h2", { id: "panel-title" }, title), make("p", { class: "quiet" }, sub));
    if (panel.hidden) opener = document.activeElement;
    current = key.replace("#", "");
    panel.replaceChildren(make("div", { class: "panel-bar" }, head, make("span", {}, close)), ...parts);
    panel.hidden = false;
    panel.scrollTop = 0;
    panel.focus({ preventScroll: true });
    document.querySelector(".grid a.here")?.classList.remove("here");
    document.querySelector(`.grid td a[href="#${current}"]`)?.classList.add("here");
    return true;
  };
  const shut = () => {
    panel.hidden = true;
    current = "";
    history.replaceState(null, "", location.pathname + location.search);
    const here = document.querySelector(".grid a.here");
    here?.classList.remove("here");
    // A key of the page opens it from nowhere; who goes on by keys is at the cell then.
    const back = opener && opener !== document.body ? opener : here;
    if (back && back.isConnected && visible(back)) back.focus({ preventScroll: back === here });
    opener = null;
  };
  const follow = () => { if (!open(location.hash) && !panel.hidden) shut(); };
  addEventListener("hashchange", follow);
  // The same cell once more changes no address.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (link && link.getAttribute("href") === location.hash) open(location.hash);
  });
  if (address.test(location.hash)) open(location.hash);

  // -- keys ------------------------------------------------------------------------------------

  const red = [];
  for (const { rows } of groups) {
    for (const [, row] of rows) {
      [...data.verdicts[row]].forEach((letter, k) => { if (RED.includes(letter)) red.push(`t-${row}-${k}`); });
    }
  }
  const walk = (by) => {
    if (!red.length) return;
    const at = red.indexOf(current);
    const next = at < 0 ? (by > 0 ? 0 : red.length - 1) : (at + by + red.length) % red.length;
    location.hash = red[next];
  };
  const beside = (by) => {
    const found = address.exec(current);
    if (!found || found[1] !== "t") return;
    const there = data.kernels.map((_, k) => k).filter((k) => data.cells[`t-${found[2]}-${k}`]);
    const next = there[there.indexOf(Number(found[3])) + by];
    if (next !== undefined) location.hash = `t-${found[2]}-${next}`;
  };
  addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || $("keys").open) return;
    const typing = event.target.matches("input, select, textarea");
    if (event.key === "Escape") {
      if (!panel.hidden) shut();
      else if (typing || matrix?.classList.contains("filtering")) clear();
      return;
    }
    if (typing) return;
    const keys = {
      "/": () => { $("query").focus(); $("query").select(); },
      "?": () => $("keys").showModal(),
      n: () => walk(1), p: () => walk(-1), t: nextTheme,
      ArrowLeft: () => beside(-1), ArrowRight: () => beside(1),
    };
    if (keys[event.key] && (event.key.length === 1 || !panel.hidden)) {
      event.preventDefault();
      keys[event.key]();
    }
  });
})();
