// Draws what `events` says. Whatever a person named goes in as text, never as markup.
"use strict";

(() => {
  const DECLINED = {
    plan: "the plan cannot be followed", not_allowed: "the task or its base is not one that they allow",
    base: "they hold another base", cohort: "too few devices to hide among", noise: "too little noise of the devices' own",
    epsilon: "their ε is spent, or stated at too large a δ", participations: "they took part as often as they may",
    size: "the adapter is larger than they train", memory: "they lack the memory", work: "more work than they do in a round",
  };
  const STATES = {
    active: ["active", "good"], complete: ["complete", "soft"], budget_spent: ["budget spent", "warn"],
    stopped: ["stopped", "soft"], paused: ["paused: it waits for its operator", "bad"],
  };
  const SVG = "http://www.w3.org/2000/svg";

  const byId = (id) => document.getElementById(id);

  // An element with attributes and children; a string is a child of its own.
  function make(name, attributes, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  function draw(name, attributes, ...children) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  function table(caption, head, rows) {
    const isNumber = (column) => rows.length > 0 && rows.every((row) => typeof row[column] === "number");
    const numbers = head.map((_, column) => isNumber(column));
    const cell = (name, value, column, more) =>
      make(name, { ...(numbers[column] ? { class: "number" } : {}), ...more }, String(value));
    return make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption },
      make("table", {}, make("caption", {}, caption),
        make("thead", {}, make("tr", {}, ...head.map((name, column) => cell("th", name, column, { scope: "col" })))),
        make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((value, column) => cell("td", value, column)))))));
  }

  const figure = (name, value, kind) =>
    make("div", {}, make("dt", {}, name), make("dd", kind ? { class: kind } : {}, String(value)));

  const day = (secs) => secs > 0 ? new Date(secs * 1000).toISOString().replace("T", " ").slice(0, 16) + " UTC" : "unknown";
  const clock = (millis) => new Date(millis).toISOString().slice(11, 19) + " UTC";
  const short = (id) => String(id).slice(0, 8);
  const epsilon = (value) => typeof value === "number" ? value.toFixed(3) : "unbounded";

  // In the words of `nightshift task show`.
  function waits(status) {
    if (status.state !== "active") return null;
    const sums = status.gathering;
    return sums ? `${gathered(sums)}; ${waitsInRound(status)}` : waitsInRound(status);
  }

  function gathered({ sums, least, most, open, devices }) {
    const wanted = least === most ? most : `${least} to ${most}`;
    return `${sums} of ${wanted} sums are there, of ${devices} devices, ${open} ${open === 1 ? "round is" : "rounds are"} open`;
  }

  function waitsInRound(status) {
    const round = status.round;
    if (!round) return status.open_round || "no round is open: the first device that has trained this version opens one";
    const what = round.joining
      ? `round ${round.round}: ${round.done} of ${round.wanted} devices joined`
      : `round ${round.round}, ${status.open_round}: ${round.done} of ${round.wanted} devices are done`;
    if (round.closes_unix_millis === null) return `${what}; the sum is being opened`;
    const more = Math.max(0, round.wanted - round.done);
    const until = more ? `${what}, waits until ${clock(round.closes_unix_millis)} for ${more} more` : what;
    return round.done < round.least ? `${until}; below ${round.least} it is given up then` : until;
  }

  function metric(version, name) {
    return (version.metrics || []).find((one) => one.name === name);
  }

  // One line over versions, with a band of two standard deviations of the noise.
  function chart(title, unit, versions, name) {
    const points = versions.flatMap((version) => {
      const found = metric(version, name);
      return found && Number.isFinite(found.mean) ? [{ x: version.version, y: found.mean, d: 2 * found.standard_deviation }] : [];
    });
    if (points.length === 0) return null;
    const [width, height, left, right, top, bottom] = [480, 180, 52, 10, 10, 24];
    const xs = points.map((point) => point.x);
    const lows = points.map((point) => point.y - point.d);
    const highs = points.map((point) => point.y + point.d);
    let [low, high] = [Math.min(...lows), Math.max(...highs)];
    if (high - low < 1e-9) [low, high] = [low - 0.5, high + 0.5];
    const [first, last] = [Math.min(...xs), Math.max(...xs)];
    const x = (at) => left + (last === first ? 0.5 : (at - first) / (last - first)) * (width - left - right);
    const y = (at) => top + (high - at) / (high - low) * (height - top - bottom);
    const to = (list, value) => list.map((point) => `${x(point.x).toFixed(1)},${y(value(point)).toFixed(1)}`).join(" ");
    const newest = points[points.length - 1];
    const says = points.length === 1 ? `${newest.y.toFixed(3)} ${unit} in version ${newest.x}.`
      : `From ${points[0].y.toFixed(3)} to ${newest.y.toFixed(3)} ${unit} over ${points.length} versions.`;
    const band = points.some((point) => point.d > 0) ? " The band is two standard deviations of the noise." : "";
    const picture = draw("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}. ${says}` },
      draw("line", { class: "axis", x1: left, y1: top, x2: left, y2: height - bottom }),
      draw("line", { class: "axis", x1: left, y1: height - bottom, x2: width - right, y2: height - bottom }),
      draw("polygon", { class: "band", points: `${to(points, (p) => p.y + p.d)} ${to([...points].reverse(), (p) => p.y - p.d)}` }),
      draw("polyline", { class: "path", points: to(points, (point) => point.y) }),
      ...points.map((point) => draw("circle", { class: "dot", cx: x(point.x), cy: y(point.y), r: 3 })),
      draw("text", { x: 2, y: top + 8 }, high.toFixed(2)),
      draw("text", { x: 2, y: height - bottom }, low.toFixed(2)),
      draw("text", { x: left, y: height - 6 }, `version ${first}`),
      ...(last > first ? [draw("text", { x: width - right, y: height - 6, "text-anchor": "end" }, `version ${last}`)] : []));
    return make("div", {}, make("h4", {}, title), picture, make("p", { class: "soft" }, says + band));
  }

  // How far devices came on their way into a version, each step as a bar of the widest.
  function funnel(title, counts) {
    const steps = ["offered", "assigned", "trained", "joined", "submitted", "counted", "missing"].map((name) => [name, counts[name]]);
    const most = Math.max(1, ...steps.map(([, count]) => count));
    const since = counts.whole ? [] : [make("p", { class: "soft" }, `Since the coordinator started, at ${day(counts.since_unix_millis / 1000)}.`)];
    return make("div", {}, make("h4", {}, title), ...since, make("ol", { class: "funnel" }, ...steps.map(([name, count]) =>
      make("li", {}, make("span", {}, `${name} ${count}`),
        draw("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
          draw("rect", { class: "bar", x: 0, y: 0, width: 100 * count / most, height: 10 }))))));
  }

  // Why no round can open, where that is known from how many there are.
  function lacks({ state, candidates }) {
    if (state !== "active" || !candidates) return null;
    const { enrolled, able, declined, least } = candidates;
    if (enrolled < least) return `Too few devices: ${enrolled} enrolled, and a version needs ${least}.`;
    if (able < least) return `Too few devices may still take part: ${able} of ${enrolled}, and a version needs ${least}.`;
    if (able - declined < least) return `Too few devices are willing: ${declined} of ${able} declined, and a version needs ${least}.`;
    return null;
  }

  function privacy(status, spent) {
    const parts = [];
    const budget = spent ? spent.epsilon_budget : null;
    const said = status.mode === "off" ? "Privacy is off: ε is unbounded."
      : `ε ${epsilon(status.epsilon)}` + (typeof budget === "number" ? ` of at most ${budget}` : ", without a budget") + ` at δ ${status.delta.toExponential()}`;
    parts.push(make("h4", {}, "Privacy"), make("p", {}, said));
    if (typeof budget === "number" && typeof status.epsilon === "number") {
      const full = status.epsilon / budget;
      parts.push(make("meter", { min: 0, max: 1, high: 0.8, value: Math.min(1, full), "aria-label": said }));
    }
    const against = {
      off: "No noise: the coordinator learns the exact sum of every round.",
      central: "The coordinator adds the noise: ε holds against whoever sees the versions.",
      distributed: "The devices add the noise: ε holds against the coordinator too.",
    }[status.mode];
    if (against) parts.push(make("p", { class: "soft" }, against));
    return make("div", {}, ...parts);
  }

  function task({ status, spent, versions_left_out }, open) {
    const [state, kind] = STATES[status.state] || [status.state, "warn"];
    const waiting = waits(status);
    const card = make("article", { "aria-label": `Task ${status.name}` },
      make("div", { class: "title" }, make("h3", {}, status.name, " ", make("code", { class: "soft" }, short(status.task))),
        make("span", { class: `state ${kind}` }, state)),
      make("p", {}, `version ${status.version} of ${status.versions_wanted}`),
      make("progress", { max: Math.max(1, status.versions_wanted), value: status.version, "aria-label": `version ${status.version} of ${status.versions_wanted}` }));
    if (waiting) card.append(make("p", {}, waiting));
    const lacking = lacks(status);
    if (lacking) card.append(make("p", { class: "bad" }, lacking));
    if (status.last_abort) card.append(make("p", { class: "warn" }, `The last round that came to nothing: ${status.last_abort}`));
    const restored = status.versions.filter((version) => typeof version.restores === "number" && !version.rolled_back);
    if (restored.length) {
      const last = restored[restored.length - 1];
      card.append(make("p", { class: "warn" }, `Version ${last.version - 1} was worse than the one before, so version ${last.version} has the parameters of version ${last.restores}.`));
    }
    const columns = make("div", { class: "two" });
    const charts = [["Training loss by version", "nats", "loss"], ["Gain of the version before, on text that is held out", "nats", "gain"]]
      .map(([title, unit, name]) => chart(title, unit, status.versions, name)).filter(Boolean);
    columns.append(...charts, privacy(status, spent));
    if (status.state === "active" && status.funnel) columns.append(funnel(`On the way to version ${status.version + 1}`, status.funnel));
    if (status.last_funnel) columns.append(funnel(`How version ${status.last_funnel.version + 1} came about`, status.last_funnel));
    if (status.declined.length) {
      columns.append(make("div", {}, make("h4", {}, "Devices that decline"),
        table("Since the coordinator started", ["reason", "devices", "first", "last"],
          status.declined.map((one) => [DECLINED[one.reason] || one.reason, one.devices, day(one.first_unix_millis / 1000), day(one.last_unix_millis / 1000)]))));
    }
    card.append(columns);
    if (status.versions.length) {
      const mean = (version, name) => { const found = metric(version, name); return found ? found.mean.toFixed(3) : "–"; };
      const rows = [...status.versions].reverse().map((version) => [version.version, version.survivors, version.cohort, epsilon(version.epsilon), mean(version, "loss"), mean(version, "gain"), day(version.committed_unix_millis / 1000)]);
      const details = make("details", { "data-key": status.task }, make("summary", {}, `All ${status.versions.length} versions` + (versions_left_out ? `, without the oldest ${versions_left_out}` : "")),
        table(`Versions of ${status.name}`, ["version", "in the sum", "in the roster", "ε", "loss", "gain", "committed"], rows));
      if (open.has(status.task)) details.open = true;
      card.append(details);
    }
    return card;
  }

  function show(seen) {
    const open = new Set([...document.querySelectorAll("details[open]")].map((one) => one.dataset.key));
    const health = seen.health;
    const trouble = byId("trouble");
    trouble.hidden = !health.trouble && !health.stopping;
    trouble.textContent = health.trouble ? `The coordinator writes nothing: ${health.trouble}`
      : health.stopping ? "The coordinator is stopping: it opens no more rounds." : "";
    byId("task-list").replaceChildren(...(seen.tasks.length ? seen.tasks.map((one) => task(one, open))
      : [make("p", {}, "There is no task. ", make("code", {}, "nightshift task create"), " makes one.")]));
    const devices = seen.devices;
    byId("devices").replaceChildren(
      figure("may connect", devices.enrolled, devices.enrolled ? "good" : ""), figure("certificate ended", devices.ended, devices.ended ? "warn" : ""),
      figure("revoked", devices.revoked), figure("end within a week", devices.ends_soon, devices.ends_soon ? "warn" : ""));
    byId("ends-soon").replaceChildren(...(devices.named.length ? [table(
      devices.ends_soon > devices.named.length ? `The first ${devices.named.length} of ${devices.ends_soon} certificates that end within a week` : "Certificates that end within a week",
      ["device", "label", "ends"], devices.named.map((one) => [short(one.device), one.label, day(one.expires_unix_secs)]))] : []));
    byId("certificates").replaceChildren(table("The coordinator's own, and its operators'", ["whose", "ends"], [
      ["this server (it makes the next one by itself)", day(health.server_expires_unix_secs)],
      ["its authority", day(health.authority_expires_unix_secs)],
      ...(health.issuer_expires_unix_secs ? [["who signs devices' certificates", day(health.issuer_expires_unix_secs)]] : []),
      ...(health.authority ? [["its file for the enrollment authority", day(health.authority.certificate_expires_unix_secs)]] : []),
      ...seen.operators.map((one) => [`operator ${one.name}`, day(one.expires_unix_secs) + (one.ends_soon ? ", soon" : "")]),
    ]));
    byId("turned-away").replaceChildren(health.turned_away.length
      ? table("Since the start", ["listener", "why", "times"], health.turned_away.map((one) => [one.listener, one.why, one.times]))
      : make("p", {}, "Nobody since the start."));
    byId("bases").replaceChildren(health.bases.length
      ? table("Bases", ["name", "digest", "MiB"], health.bases.map((one) => [one.name, short(one.digest), Math.ceil(one.bytes / 1048576)]))
      : make("p", {}, health.bases_to_read ? "They are being read." : "None."));
    return seen.now_unix_millis;
  }

  const link = byId("link");
  let since = null;
  function say(text, kind) {
    if (link.textContent !== text) link.textContent = text;
    link.className = kind;
  }

  // An answer ends when it is whole, and the browser asks again by itself; one that does not come is told after a while.
  let late = null;
  function connect() {
    const events = new EventSource("events");
    const heard = () => {
      clearTimeout(late);
      late = null;
      if (since !== null) say(`Live; the last change was at ${clock(since)}`, "");
    };
    events.onopen = heard;
    events.onmessage = (event) => {
      try {
        since = show(JSON.parse(event.data));
      } catch (error) {
        say(`This page cannot show what the coordinator says: ${error}`, "bad");
        return;
      }
      heard();
    };
    events.onerror = () => {
      late ??= setTimeout(() => say(since === null ? "The coordinator does not answer."
        : `The coordinator does not answer; this is as of ${clock(since)}.`, "bad"), 30000);
      // It answered something else than events: it may have been started again, or this operator's certificate has ended.
      if (events.readyState === EventSource.CLOSED) {
        say("The coordinator does not show anything to this operator now; trying again.", "bad");
        setTimeout(connect, 10000);
      }
    };
  }
  connect();
})();
