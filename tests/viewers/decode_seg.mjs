// Segmentations -> label maps, by the decoder that OHIF has in it, without a browser.
//
//   node decode_seg.mjs JOBS.json
//
// JOBS.json: [{sources: [paths of the source's instances], seg: path, out: path}, ...]. The images
// keep the order in which they are given. Each job's labels go to `out`: one byte a voxel,
// [image, row, column]. What else was decoded goes to standard output, as a JSON list: a job's
// images (SOP Instance UID, frame number), whether segments overlap, and the segments.
//
// Metadata of the sources come from cornerstone's own providers, as in the viewer. What a job's
// decoding threw or warned of, such as of a frame for which it found no image, is its `problems`.

import { readFileSync, writeFileSync } from 'node:fs';
import { adaptersSEG } from '@cornerstonejs/adapters';
import { cache } from '@cornerstonejs/core';
import { Enums, metaData, registerDefaultProviders } from '@cornerstonejs/metadata';

const { INSTANCE, NATURALIZED } = Enums.MetadataModules;
// OHIF's provider names the instance in this module too, and the decoder looks there.
const metadataProvider = {
  get: (type, id) =>
    type === 'generalImageModule'
      ? { ...metaData.get(type, id), ...metaData.get('sopCommonModule', id) }
      : metaData.get(type, id),
};
let problems = [];
console.warn = (...words) => problems.push(words.join(' '));
registerDefaultProviders();

const bufferOf = (path) => {
  const data = readFileSync(path);
  return data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
};

async function decode({ sources, seg, out }) {
  cache.purgeCache();
  const imageIds = [];
  for (const path of sources) {
    const base = `wadors:${path}/instances/1`;
    const dataset = await metaData.addTyped(NATURALIZED, base, {
      part10Buffer: bufferOf(path),
    });
    const frames = Number(dataset?.NumberOfFrames ?? 1);
    for (let frame = 1; frame <= frames; frame++) imageIds.push(`${base}/frames/${frame}`);
  }
  const found = await adaptersSEG.Cornerstone3D.Segmentation.createFromDICOMSegBuffer(
    imageIds, bufferOf(seg), { metadataProvider });
  const [images] = found.labelMapImages;
  writeFileSync(out, Buffer.concat(images.map((image) => Buffer.from(image.getPixelData()))));
  return {
    images: imageIds.map((id) => [
      String(metaData.get(INSTANCE, id).SOPInstanceUID), Number(id.split('/').pop())]),
    layers: found.labelMapImages.length,
    overlapping: found.overlappingSegments,
    segments: found.segMetadata.data.filter(Boolean).map((item) => ({
      number: item.SegmentNumber, label: item.SegmentLabel })),
  };
}

const results = [];
for (const job of JSON.parse(readFileSync(process.argv[2], 'utf-8'))) {
  problems = [];
  const result = await decode(job).catch((error) => {
    problems.push(String(error.stack));
    return {};
  });
  results.push({ ...result, problems });
}
process.stdout.write(JSON.stringify(results));
