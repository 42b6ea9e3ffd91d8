import { describe, expect, it } from "vitest";
import { diffTranscripts, mediaType } from "../src/api";
import { buildCues, toSrt, toText, toTtml, toWebVtt } from "../src/captions";
import { push, createHistory, findMatches, redo, undo, renameSpeaker, replaceWord } from "../src/editing";
import { EMPTY_TRANSCRIPT, speakerNames, speakerId, toResult, addSegment } from "../src/live/transcript";
import type { LiveSegment } from "../src/live/messages";
import type { Segment, Transcript } from "../src/result";
import { boxAt, isDoubtful, wordIndexAt } from "../src/result";
import { EtaEstimator, formatTime, formatSize, formatTimeLeft } from "../src/format";

function segment(id: number, text: string, startS = 0, person = "person-1"): Segment {
  const words = text.split(" ").map((each, index) => ({ text: each, start_s: startS + index, end_s: startS + index + 0.8, confidence: 0.9, source: "both" as const, alternatives: [] }));
  return { id: `segment-${id}`, person, start_s: startS, end_s: startS + words.length, text, confidence: 0.9, words };
}

const two: Transcript = { segments: [segment(1, "bin blue at f"), segment(2, "place red in h", 5, "person-2")], names: {} };

describe("corrections", () => {
  it("split the time of a replaced word by length and have confidence 1", () => {
    const next = replaceWord(two, { segmentId: "segment-1", index: 1 }, "  dark\n blue ");
    expect(next.segments[0]!.text).toBe("bin dark blue at f");
    const [dark, blue] = next.segments[0]!.words.slice(1, 3);
    expect(dark).toMatchObject({ start_s: 1, end_s: 1.4, confidence: 1, source: "correction" });
    expect(blue).toMatchObject({ start_s: 1.4, end_s: 1.8 });
  });
  it("remove a word, and the segment with its last word", () => {
    let next = two;
    for (let count = 0; count < 4; count++) next = replaceWord(next, { segmentId: "segment-1", index: 0 }, "");
    expect(next.segments.map((each) => each.id)).toEqual(["segment-2"]);
  });
  it("are sent as the difference between transcripts", () => {
    const next = renameSpeaker(replaceWord(two, { segmentId: "segment-2", index: 0 }, "put"), "person-1", "Ada");
    expect(diffTranscripts(two, next)).toEqual({ segments: [{ id: "segment-2", text: "put red in h" }], names: { "person-1": "Ada" } });
    expect(diffTranscripts(next, two)).toEqual({ segments: [{ id: "segment-2", text: "place red in h" }], names: { "person-1": "Person 1" } });
    expect(diffTranscripts(two, two)).toEqual({ segments: [], names: {} });
  });
  it("can be undone and redone", () => {
    const next = renameSpeaker(two, "person-1", "Ada");
    const history = push(createHistory(two), next);
    expect(undo(history).present).toBe(two);
    expect(redo(undo(history)).present).toBe(next);
    expect(push(history, next)).toBe(history);
    expect(redo(push(undo(history), renameSpeaker(two, "person-1", "Eve"))).present.names).toEqual({ "person-1": "Eve" });
  });
});

describe("search", () => {
  it("finds consecutive words, ignoring case, accents and punctuation", () => {
    const text: Transcript = { segments: [segment(1, "Élan, vital: elan vitalis")], names: {} };
    expect(findMatches(text.segments, "elan vital").map((match) => match.index)).toEqual([0, 2]);
    expect(findMatches(text.segments, "ALIS").map((match) => match.index)).toEqual([3]);
    expect(findMatches(text.segments, "  ")).toEqual([]);
  });
});

describe("captions", () => {
  it("have at most two lines of 42 characters and do not overlap", () => {
    const long = { segments: [segment(1, Array.from({ length: 40 }, (_, index) => `word${index}`).join(" ")), segment(2, "and another", 3, "person-2")], names: {} };
    const cues = buildCues(long.segments);
    expect(Math.max(...cues.flatMap((cue) => cue.lines.map((line) => line.length)))).toBeLessThanOrEqual(42);
    expect(Math.max(...cues.map((cue) => cue.lines.length))).toBeLessThanOrEqual(2);
    for (const [index, cue] of cues.slice(1).entries()) expect(cue.start_s).toBeGreaterThanOrEqual(cues[index]!.end_s);
  });
  it("escape markup of their format", () => {
    const malicious: Transcript = { segments: [segment(1, "<script>alert(1)</script> --> {x}"), segment(2, "& more", 9, "person-2")], names: { "person-1": "<b>&" } };
    const vtt = toWebVtt(malicious);
    expect(vtt).toContain("<v &lt;b&gt;&amp;>&lt;script&gt;");
    expect(vtt.match(/-->/g)!.length).toBe(buildCues(malicious.segments).length);
    expect(toSrt(malicious)).toContain("‹script›");
    expect(findUnclosedTags(toTtml(malicious, "en"))).toEqual([]);
  });
});

/** Return the first tag that is not closed properly (Node has no DOMParser). */
function findUnclosedTags(xml: string): string[] {
  const open: string[] = [];
  for (const [, close, name, empty] of xml.replace(/<\?.*?\?>/g, "").matchAll(/<(\/?)([\w:]+)[^<>]*?(\/?)>/g)) {
    if (empty) continue;
    if (!close) open.push(name!);
    else if (open.pop() !== name) return [`</${name}>`];
  }
  return open;
}

describe("the player", () => {
  it("finds the word spoken at a time", () => {
    const [first] = two.segments;
    expect([-1, 0, 1.9, 99].map((timeS) => wordIndexAt(first!, timeS))).toEqual([-1, 0, 1, 3]);
  });
  it("interpolates face boxes and hides them in gaps", () => {
    const boxes = [0, 0.4, 5].map((time_s) => ({ time_s, left: time_s, top: 0, width: 1, height: 1 }));
    expect(boxAt(boxes, 0.2)!.left).toBeCloseTo(0.2);
    expect(boxAt(boxes, 0.6)!.left).toBe(0.4);
    expect(boxAt(boxes, 2)).toBeNull();
    expect(boxAt([], 2)).toBeNull();
  });
});

describe("live transcripts", () => {
  const live = (id: string, text: string, isFinal: boolean, speaker = "face-1"): LiveSegment => ({ segment_id: id, revision: 1, is_final: isFinal, speaker, modality: "av", start_s: 0, end_s: 1, text, confidence: 1, doubtful: false, words: [], face_boxes: [] });
  it("replace interim segments until they are final", () => {
    let transcript = addSegment(EMPTY_TRANSCRIPT, live("1", "bin", false));
    transcript = addSegment(transcript, live("1", "bin blue", false));
    expect(transcript.interim.map((each) => each.text)).toEqual(["bin blue"]);
    transcript = addSegment(transcript, live("1", "bin blue at f", true));
    expect([transcript.final.length, transcript.interim.length]).toEqual([1, 0]);
    expect(addSegment(transcript, live("1", "late", false))).toBe(transcript);
  });
  it("number speakers in order of appearance", () => {
    let transcript = addSegment(EMPTY_TRANSCRIPT, live("1", "a", true, "face-3"));
    transcript = addSegment(transcript, live("2", "b", true, "voice"));
    transcript = addSegment(transcript, live("3", "c", false, "face-9"));
    expect(speakerId(transcript, "face-3")).toBe("person-1");
    expect(speakerId(transcript, "face-9")).toBe("person-3");
    expect(transcript.speakers).toEqual(["face-3", "voice"]);
    expect(speakerNames(transcript, "Voice")).toEqual({ "person-2": "Voice" });
    const result = toResult(transcript, { name: "x", durationS: 2, widthPx: 0, heightPx: 0, model: "m", modality: "av" });
    expect(result.segments.map((each) => [each.id, each.person, each.words[0]!.source])).toEqual([["segment-1", "person-1", "both"], ["segment-2", "person-2", "both"]]);
  });
});

describe("words of live results", () => {
  it("have the source that the server states, else that of their segment", () => {
    const words = [{ text: "bin", start_s: 0, end_s: 0.4, confidence: 1, source: "audio" as const }, { text: "blue", start_s: 0.4, end_s: 1, confidence: 1 }];
    const live: LiveSegment = { segment_id: "1", revision: 1, is_final: true, speaker: "face-1", modality: "av", start_s: 0, end_s: 1, text: "bin blue", confidence: 1, doubtful: false, words, face_boxes: [] };
    const result = toResult(addSegment(EMPTY_TRANSCRIPT, live), { name: "x", durationS: 1, widthPx: 0, heightPx: 0, model: "m", modality: "av" });
    expect(result.segments[0]!.words.map((word) => word.source)).toEqual(["audio", "both"]);
  });
});

describe("doubtful words", () => {
  const live: LiveSegment = { segment_id: "1", revision: 1, is_final: true, speaker: "face-1", modality: "video", start_s: 0, end_s: 1, text: "bin blue", confidence: 1, doubtful: true, words: [], face_boxes: [] };
  const result = toResult(addSegment(EMPTY_TRANSCRIPT, live), { name: "x", durationS: 1, widthPx: 0, heightPx: 0, model: "m", modality: "video" });
  const transcript = { segments: result.segments, names: {} };
  it("are marked in captions and text until they are corrected", () => {
    expect(toWebVtt(transcript)).toContain("<v Person 1>(?) bin blue");
    expect(toSrt(transcript)).toContain("\n(?) bin blue\n");
    expect(toText(transcript)).toBe("(?) bin blue\n");
    expect(toText(replaceWord(transcript, { segmentId: "segment-1", index: 0 }, "pin blue"))).toBe("pin blue\n");
  });
  it("mark their segment in every format", () => {
    const doubtful = segment(1, "bin blue");
    doubtful.words[1]!.is_doubtful = true;
    const one: Transcript = { segments: [doubtful], names: {} };
    expect([doubtful, segment(2, "bin blue")].map(isDoubtful)).toEqual([true, false]);
    for (const text of [toWebVtt(one), toSrt(one), toTtml(one, "en"), toText(one)]) expect(text).toContain("(?) bin blue");
  });
});

describe("media types", () => {
  it("are those that the API accepts", () => {
    expect(mediaType("a.MKV", "")).toBe("video/x-matroska");
    expect(mediaType("blob", "video/webm;codecs=vp8,opus")).toBe("video/webm");
    expect(mediaType("x.m4v", "")).toBe("video/x-m4v");
    expect(mediaType("clip.3gp", "")).toBe("video/3gpp");
    expect(mediaType("recording", "audio/webm;codecs=opus")).toBe("audio/webm");
    expect(mediaType("notes.txt", "text/plain")).toBe("");
  });
});

describe("formatting", () => {
  it("formats times, remaining times and sizes", () => {
    expect([0, 65.9, 3723].map(formatTime)).toEqual(["0:00", "1:05", "1:02:03"]);
    expect([3, 34, 61, 600, 7200].map(formatTimeLeft)).toEqual(["a few seconds left", "about 40 seconds left", "about 70 seconds left", "about 10 minutes left", "about 2 hours left"]);
    expect([999, 417541, 5_368_709_120].map(formatSize)).toEqual(["999 B", "418 kB", "5.4 GB"]);
  });
  it("estimates the remaining time from the rate of progress", () => {
    const estimator = new EtaEstimator();
    expect(estimator.update(0, 0)).toBeNull();
    expect(estimator.update(0.25, 10)).toBeCloseTo(30);
    expect(estimator.update(0.25, 15)).toBeCloseTo(25);
    expect(estimator.update(0.1, 16)).toBeNull();
  });
});
