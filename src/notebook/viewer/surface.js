// Finds the outer faces of voxels, and writes them as the graphics card reads them.

// Finds the faces to draw: those without a neighbour in front. They are faces of voxels (k = 0), or of blocks of (2ᵏ)³ voxels.
function wavemeshSurface(shape, s, visible, solid, k) {
  const [w, h, d] = shape.map(n => Math.ceil(n / (1 << k))), row = w, slice = w * h;
  const bits = new Uint32Array(Math.ceil(w * h * d / 32)), ids = new Uint32Array(visible.kept), has = i => bits[i >>> 5] >>> (i & 31) & 1;
  let n = 0;
  for (const i of visible.ids) {
    const at = (s[3 * i] >> k) + row * (s[3 * i + 1] >> k) + slice * (s[3 * i + 2] >> k);
    if (k && has(at)) continue;
    bits[at >>> 5] |= 1 << (at & 31);
    ids[n++] = i;
  }
  const masks = new Uint8Array(n), counts = [0, 0, 0, 0, 0, 0];
  let outer = 0;
  for (let j = 0; j < n; j++) {
    const i = ids[j], x = s[3 * i] >> k, y = s[3 * i + 1] >> k, z = s[3 * i + 2] >> k, at = x + row * y + slice * z;
    const hidden = !solid ? 0 : (x > 0 && has(at - 1)) | (x < w - 1 && has(at + 1)) << 1 | (y > 0 && has(at - row)) << 2 | (y < h - 1 && has(at + row)) << 3
      | (z > 0 && has(at - slice)) << 4 | (z < d - 1 && has(at + slice)) << 5;
    if (hidden === 63) continue;
    for (let f = 0; f < 6; f++) counts[f] += ~hidden >> f & 1;
    ids[outer] = i;
    masks[outer++] = 63 & ~hidden;
  }
  const faces = counts.reduce((a, b) => a + b, 0), rows = Math.ceil(faces / 4096) || 1;
  return { k, faces, rows, counts, ids: ids.subarray(0, outer), masks, data: new Uint16Array(4 * 4096 * rows), owner: new Uint32Array(faces), sorted: null, texture: null };
}

// Writes the faces of a surface, direction by direction; or voxel by voxel, if `order` lists the voxels from far to near.
function wavemeshFaces(level, s, q, order) {
  const { k, ids, masks, counts, data, owner } = level;
  const next = counts.map((_, f) => counts.slice(0, f).reduce((a, b) => a + b, 0));
  level.starts = next.slice();
  let last = 0;
  for (let j = 0; j < ids.length; j++) {
    const o = order ? order[j] : j, i = ids[o], mask = masks[o], value = q ? q[i] === 65535 ? 8191 : Math.min(q[i] >> 3, 8190) : 4095;
    for (let f = 0; f < 6; f++) if (mask >> f & 1) {
      const at = order ? last++ : next[f]++;
      data[4 * at] = s[3 * i] >> k; data[4 * at + 1] = s[3 * i + 1] >> k; data[4 * at + 2] = s[3 * i + 2] >> k;
      data[4 * at + 3] = value << 3 | f;
      owner[at] = i;
    }
  }
  level.sorted = !!order;
  level.uploaded = false;
}

// Orders n things from far to near along `r`, with a counting sort. `at(k)` is the middle of the k-th thing.
function wavemeshFarToNear(r, center, radius, n, at) {
  const bins = 4096, key = new Uint16Array(n), count = new Uint32Array(bins + 1), order = new Uint32Array(n);
  for (let k = 0; k < n; k++) {
    const p = at(k), depth = (p[0] - center[0]) * r[0] + (p[1] - center[1]) * r[1] + (p[2] - center[2]) * r[2];
    key[k] = Math.min(bins - 1, Math.max(0, (depth / radius + 1) / 2 * bins | 0));
    count[key[k] + 1]++;
  }
  for (let b = 0; b < bins; b++) count[b + 1] += count[b];
  for (let k = 0; k < n; k++) order[count[key[k]]++] = k;
  return order;
}
