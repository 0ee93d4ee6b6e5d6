// Finds the speech in a recording, a frame of 32 ms at a time, as it would come from a microphone.
//
//     voice_activity MODEL.heed SPEECH.wav [PROBABILITIES.csv] [--isa ISA]
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "examples/common/example.h"
#include "heed/sha256.h"

using namespace example;

namespace {

constexpr int rate = 16000;  // samples in a second
constexpr size_t frame = 512,
                 context = 64;  // samples: a frame, and the end of the one before it, which the model sees too

/// Samples in [-1, 1): 16-bit PCM, one channel, 16 kHz, as the model knows them. Whatever the chunks say is checked
/// against the file's size; a data chunk that claims more than there is (a stream's does) ends with the file.
std::vector<float> read_wav(const char* path) {
  size_t size;
  const std::unique_ptr<uint8_t, void (*)(void*)> file(static_cast<uint8_t*>(read_whole(path, &size)), std::free);
  const uint8_t* bytes = file.get();
  const auto number = [&](size_t at, int width) {
    uint32_t value = 0;
    for (int i = 0; i < width; ++i) value |= uint32_t{bytes[at + size_t(i)]} << 8 * i;
    return value;
  };
  const auto is = [&](size_t at, const char* name) { return std::memcmp(bytes + at, name, 4) == 0; };
  if (size < 12 || !is(0, "RIFF") || !is(8, "WAVE")) fail("is no wav file", path);
  bool right = false;
  for (uint64_t at = 12; at + 8 <= size;) {
    const uint32_t length = number(at + 4, 4);
    const size_t body = at + 8, left = std::min<uint64_t>(length, size - body);
    if (is(at, "fmt ") && left >= 16)  // format, channels, rate, bytes in a second, bytes of a sample, bits of a sample
      right =
          number(body, 2) == 1 && number(body + 2, 2) == 1 && number(body + 4, 4) == rate && number(body + 14, 2) == 16;
    if (is(at, "data")) {
      if (!right) fail("has to be 16-bit PCM, one channel, 16 kHz", path);
      std::vector<float> samples(left / 2);
      for (size_t i = 0; i < samples.size(); ++i) samples[i] = float(int16_t(number(body + 2 * i, 2))) / 32768;
      return samples;
    }
    at = uint64_t{body} + length + length % 2;
  }
  fail("has no samples", path);
}

/// The probability of speech in each frame; the last one is filled up with silence. [samples / frame]
std::vector<float> listen(heed::Session& session, std::span<const float> samples) {
  std::vector<float> window(context + frame), probability;
  for (size_t at = 0; at < samples.size(); at += frame) {
    std::copy(window.end() - context, window.end(), window.begin());
    const size_t count = std::min(frame, samples.size() - at);
    std::copy_n(samples.begin() + std::ptrdiff_t(at), count, window.begin() + context);
    std::fill(window.begin() + std::ptrdiff_t(context + count), window.end(), 0.0f);
    std::ranges::copy(window,
                      expect(session.input<float>("input"), window.size(), "input").begin());  // [1, context + frame]
    require(session.run(), "voice_activity");
    probability.push_back(expect(session.output<float>("output"), 1, "output")[0]);  // [1, 1]
  }
  return probability;
}

struct Segment {
  size_t begin, end;  // frames
};

/// Speech begins with a frame that is more likely speech than not. It goes on while frames are not clearly silent, and
/// over pauses of up to 96 ms, which are parts of words; what is shorter than 250 ms is none.
std::vector<Segment> speech(std::span<const float> probability) {
  constexpr float begins = 0.5f, goes_on = 0.35f;
  constexpr size_t longest_pause = 3, shortest = 8;  // frames
  std::vector<Segment> segments;
  for (size_t i = 0; i < probability.size(); ++i) {
    if (probability[i] < begins) continue;
    Segment segment{i, i + 1};
    for (; i < probability.size() && i <= segment.end + longest_pause; ++i)
      if (probability[i] >= goes_on) segment.end = i + 1;
    i = segment.end;  // the frame there is silent
    if (segment.end - segment.begin >= shortest) segments.push_back(segment);
  }
  return segments;
}

double seconds(size_t frames) {
  return double(frames * frame) / rate;
}

/// Lines "seconds,probability,speech", the last 1 within a segment.
void write_probabilities(const char* path, std::span<const float> probability, std::span<const Segment> segments) {
  std::FILE* file = std::fopen(path, "w");
  if (file == nullptr) fail("cannot be written", path);
  std::fprintf(file, "seconds,probability,speech\n");
  for (size_t i = 0; i < probability.size(); ++i) {
    while (!segments.empty() && segments[0].end <= i) segments = segments.subspan(1);
    const bool speech = !segments.empty() && segments[0].begin <= i;
    std::fprintf(file, "%.3f,%.6f,%d\n", seconds(i), double(probability[i]), speech);
  }
  close_written(file, path);
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments(argc, argv, "voice_activity MODEL.heed SPEECH.wav [PROBABILITIES.csv] [--isa ISA]", 2, 3,
                            {"--isa"});
  const std::vector<float> samples = read_wav(arguments.file(1));
  heed::Session session = open_session(arguments.file(0), arguments.isa());
  const auto start = std::chrono::steady_clock::now();
  const std::vector<float> probability = listen(session, samples);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;

  const std::vector<Segment> segments = speech(probability);
  size_t frames = 0;
  for (const auto [begin, end] : segments) {
    std::printf("%7.2f to %6.2f s\n", seconds(begin), seconds(end));
    frames += end - begin;
  }
  std::printf("%.1f of %.1f seconds are speech\n", seconds(frames), double(samples.size()) / rate);
  close_written(stdout, "standard output");
  if (arguments.file(2) != nullptr) write_probabilities(arguments.file(2), probability, segments);
  std::fprintf(stderr, "%.3f ms for a frame of 32 ms\narena: %zu bytes\nhash: %s\n",
               took.count() * 1000 / double(std::max<size_t>(probability.size(), 1)),
               size_t(session.model().memory().total()),
               heed::sha256(std::as_bytes(std::span(probability))).hex().text);
}
