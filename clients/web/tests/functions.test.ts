import { describe, expect, it } from "vitest";
import { corrections, mediaType } from "../src/api";
import { cuesOf, toSrt, toTtml, toWebVtt } from "../src/captions";
import { done, historyOf, matches, redone, undone, withName, withWord } from "../src/editing";
import { NO_LINES, namesOf, personOf, resultOf, withSegment } from "../src/live/words";
import type { LiveSegment } from "../src/live/messages";
import type { Segment, Transcript } from "../src/result";
import { boxAt, wordIndexAt } from "../src/result";
import { Estimate, clockOf, sizeOf, timeLeft } from "../src/time";

function segment(id: number, text: string, startS = 0, person = "person-1"): Segment {
  const words = text.split(" ").map((each, index) => ({ text: each, start_s: startS + index, end_s: startS + index + 0.8, confidence: 0.9, source: "both" as const, alternatives: [] }));
  return { id: `segment-${id}`, person, start_s: startS, end_s: startS + words.length, text, confidence: 0.9, words };
}

const two: Transcript = { segments: [segment(1, "bin blue at f"), segment(2, "place red in h", 5, "person-2")], names: {} };

describe("corrections", () => {
  it("share the time of the word among several, and are certain", () => {
    const next = withWord(two, { segmentId: "segment-1", index: 1 }, "  dark\n blue ");
    expect(next.segments[0]!.text).toBe("bin dark blue at f");
    const [dark, blue] = next.segments[0]!.words.slice(1, 3);
    expect(dark).toMatchObject({ start_s: 1, end_s: 1.4, confidence: 1, source: "correction" });
    expect(blue).toMatchObject({ start_s: 1.4, end_s: 1.8 });
  });
  it("take a word away, and with the last one its line", () => {
    let next = two;
    for (let count = 0; count < 4; count++) next = withWord(next, { segmentId: "segment-1", index: 0 }, "");
    expect(next.segments.map((each) => each.id)).toEqual(["segment-2"]);
  });
  it("are told as what differs", () => {
    const next = withName(withWord(two, { segmentId: "segment-2", index: 0 }, "put"), "person-1", "Ada");
    expect(corrections(two, next)).toEqual({ segments: [{ id: "segment-2", text: "put red in h" }], names: { "person-1": "Ada" } });
    expect(corrections(next, two)).toEqual({ segments: [{ id: "segment-2", text: "place red in h" }], names: { "person-1": "Person 1" } });
    expect(corrections(two, two)).toEqual({ segments: [], names: {} });
  });
  it("are undone and done again", () => {
    const next = withName(two, "person-1", "Ada");
    const history = done(historyOf(two), next);
    expect(undone(history).present).toBe(two);
    expect(redone(undone(history)).present).toBe(next);
    expect(done(history, next)).toBe(history);
    expect(redone(done(undone(history), withName(two, "person-1", "Eve"))).present.names).toEqual({ "person-1": "Eve" });
  });
});

describe("search", () => {
  it("finds words in order, whatever their case and marks", () => {
    const text: Transcript = { segments: [segment(1, "Élan, vital: elan vitalis")], names: {} };
    expect(matches(text.segments, "elan vital").map((match) => match.index)).toEqual([0, 2]);
    expect(matches(text.segments, "ALIS").map((match) => match.index)).toEqual([3]);
    expect(matches(text.segments, "  ")).toEqual([]);
  });
});

describe("captions", () => {
  it("have two lines of 42 characters at most, and never overlap", () => {
    const long = { segments: [segment(1, Array.from({ length: 40 }, (_, index) => `word${index}`).join(" ")), segment(2, "and another", 3, "person-2")], names: {} };
    const cues = cuesOf(long.segments);
    expect(Math.max(...cues.flatMap((cue) => cue.lines.map((line) => line.length)))).toBeLessThanOrEqual(42);
    expect(Math.max(...cues.map((cue) => cue.lines.length))).toBeLessThanOrEqual(2);
    for (const [index, cue] of cues.slice(1).entries()) expect(cue.start_s).toBeGreaterThanOrEqual(cues[index]!.end_s);
  });
  it("escape what formats would read as their own", () => {
    const hostile: Transcript = { segments: [segment(1, "<script>alert(1)</script> --> {x}"), segment(2, "& more", 9, "person-2")], names: { "person-1": "<b>&" } };
    const vtt = toWebVtt(hostile);
    expect(vtt).toContain("<v &lt;b&gt;&amp;>&lt;script&gt;");
    expect(vtt.match(/-->/g)!.length).toBe(cuesOf(hostile.segments).length);
    expect(toSrt(hostile)).toContain("‹script›");
    const ttml = new DOMParserStub().errors(toTtml(hostile, "en"));
    expect(ttml).toEqual([]);
  });
});

/** No browser here: that every tag is closed is checked by hand. */
class DOMParserStub {
  errors(xml: string): string[] {
    const open: string[] = [];
    for (const [, close, name, empty] of xml.replace(/<\?.*?\?>/g, "").matchAll(/<(\/?)([\w:]+)[^<>]*?(\/?)>/g)) {
      if (empty) continue;
      if (!close) open.push(name!);
      else if (open.pop() !== name) return [`</${name}>`];
    }
    return open;
  }
}

describe("the player", () => {
  it("knows the word at a time", () => {
    const [first] = two.segments;
    expect([-1, 0, 1.9, 99].map((timeS) => wordIndexAt(first!, timeS))).toEqual([-1, 0, 1, 3]);
  });
  it("moves a face's box between two looks, and takes it away after a while", () => {
    const boxes = [0, 0.4, 5].map((time_s) => ({ time_s, left: time_s, top: 0, width: 1, height: 1 }));
    expect(boxAt(boxes, 0.2)!.left).toBeCloseTo(0.2);
    expect(boxAt(boxes, 0.6)!.left).toBe(0.4);
    expect(boxAt(boxes, 2)).toBeNull();
    expect(boxAt([], 2)).toBeNull();
  });
});

describe("live words", () => {
  const live = (id: string, text: string, isFinal: boolean, speaker = "face-1"): LiveSegment => ({ segment_id: id, revision: 1, is_final: isFinal, speaker, modality: "av", start_s: 0, end_s: 1, text, confidence: 1, words: [], face_boxes: [] });
  it("are replaced until they are final", () => {
    let lines = withSegment(NO_LINES, live("1", "bin", false));
    lines = withSegment(lines, live("1", "bin blue", false));
    expect(lines.interim.map((each) => each.text)).toEqual(["bin blue"]);
    lines = withSegment(lines, live("1", "bin blue at f", true));
    expect([lines.final.length, lines.interim.length]).toEqual([1, 0]);
    expect(withSegment(lines, live("1", "late", false))).toBe(lines);
  });
  it("belong to people in order of appearance", () => {
    let lines = withSegment(NO_LINES, live("1", "a", true, "face-3"));
    lines = withSegment(lines, live("2", "b", true, "voice"));
    lines = withSegment(lines, live("3", "c", false, "face-9"));
    expect(personOf(lines, "face-3")).toBe("person-1");
    expect(personOf(lines, "face-9")).toBe("person-3");
    expect(lines.speakers).toEqual(["face-3", "voice"]);
    expect(namesOf(lines, "Voice")).toEqual({ "person-2": "Voice" });
    const result = resultOf(lines, { name: "x", durationS: 2, widthPx: 0, heightPx: 0, model: "m", modality: "av" });
    expect(result.segments.map((each) => [each.id, each.person, each.words[0]!.source])).toEqual([["segment-1", "person-1", "both"], ["segment-2", "person-2", "both"]]);
  });
});

describe("jobs", () => {
  it("are of types that the API takes", () => {
    expect(mediaType("a.MKV", "")).toBe("video/x-matroska");
    expect(mediaType("blob", "video/webm;codecs=vp8,opus")).toBe("video/webm");
    expect(mediaType("x.m4v", "")).toBe("video/x-m4v");
    expect(mediaType("clip.3gp", "")).toBe("video/3gpp");
    expect(mediaType("recording", "audio/webm;codecs=opus")).toBe("audio/webm");
    expect(mediaType("notes.txt", "text/plain")).toBe("");
  });
});

describe("times", () => {
  it("are for people", () => {
    expect([0, 65.9, 3723].map(clockOf)).toEqual(["0:00", "1:05", "1:02:03"]);
    expect([3, 34, 61, 600, 7200].map(timeLeft)).toEqual(["a few seconds left", "about 40 seconds left", "about 70 seconds left", "about 10 minutes left", "about 2 hours left"]);
    expect([999, 417541, 5_368_709_120].map(sizeOf)).toEqual(["999 B", "418 kB", "5.4 GB"]);
  });
  it("left are guessed from how it went", () => {
    const estimate = new Estimate();
    expect(estimate.update(0, 0)).toBeNull();
    expect(estimate.update(0.25, 10)).toBeCloseTo(30);
    expect(estimate.update(0.25, 15)).toBeCloseTo(25);
    expect(estimate.update(0.1, 16)).toBeNull();
  });
});
