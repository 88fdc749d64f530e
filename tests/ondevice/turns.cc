// A program on classifier.h: what the command line alone does not show. Prints what it sees, one
// name and value a line; test_cpp_example.py knows what that should be.
//
// turns STREAM.tflite OTHER_STREAM.tflite WHOLE.tflite, all of vectors of two channels; the other
// with another number of cells.

#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "classifier.h"

namespace {

using t2aux::Classifier;
using t2aux::State;
using t2aux::Status;

// Value i of sequence s.
float Value(int s, int i) { return static_cast<float>((i * (s + 3)) % 17) / 16.0f; }

std::vector<float> Part(int s, int begin, int end) {
  std::vector<float> part;
  for (int i = 2 * begin; i < 2 * end; ++i) part.push_back(Value(s, i));
  return part;
}

void Show(const char* name, const std::vector<float>& values) {
  std::printf("%s", name);
  for (float v : values) std::printf(" %.9g", v);
  std::printf("\n");
}

void Show(const char* name, const Status& status) {
  std::printf("%s %s\n", name, status.ok() ? "ok" : status.sentence().c_str());
}

long ResidentKilobytes() {
  FILE* file = std::fopen("/proc/self/status", "r");
  char line[256];
  long kilobytes = -1;
  while (file && std::fgets(line, sizeof(line), file)) {
    if (std::strncmp(line, "VmRSS:", 6) == 0) std::sscanf(line + 6, "%ld", &kilobytes);
  }
  if (file) std::fclose(file);
  return kilobytes;
}

}  // namespace

int main(int, char** arguments) {
  std::unique_ptr<Classifier> stream, other, whole;
  Show("load", Classifier::Load(arguments[1], true, &stream));
  Show("load", Classifier::Load(arguments[2], true, &other));
  Show("load", Classifier::Load(arguments[3], true, &whole));

  // Two sequences alternately, in segments of all sizes.
  State states[2] = {stream->InitialState(), stream->InitialState()};
  std::vector<float> probabilities[2];
  const int ends[] = {0, 1, 8, 10, 10 + 28, 40};
  for (int part = 0; part + 1 < 6; ++part) {
    for (int s = 0; s < 2; ++s) {
      Status status =
          stream->Step(Part(s, ends[part], ends[part + 1]), &states[s], &probabilities[s]);
      if (!status.ok()) Show("turn", status);
    }
  }
  Show("first", probabilities[0]);
  Show("second", probabilities[1]);

  // What fails leaves everything as it was.
  const State before = states[0];
  std::vector<float> answer = probabilities[0];
  Show("nan", stream->Step(std::vector<float>{0, 0, 0, NAN}, &states[0], &answer));
  Show("cut", stream->Step(std::vector<float>{0, 0, 0}, &states[0], &answer));
  Show("none", stream->Step(std::vector<float>{}, &states[0], &answer));
  Show("ids", stream->Step(std::vector<int32_t>{1, 2}, &states[0], &answer));
  Show("strange", other->Step(std::vector<float>{0, 0}, &states[0], &answer));
  Show("whole", whole->Step(std::vector<float>{0, 0}, &states[0], &answer));
  const bool kept = states[0].tensors == before.tensors && states[0].steps == before.steps &&
                    answer == probabilities[0];
  std::printf("kept %d\n", kept);

  // The whole file on sequences of several lengths.
  Show("length", whole->Classify(Part(1, 0, 3), &answer));
  Show("length", whole->Classify(Part(1, 0, 40), &answer));
  Show("all", answer);

  // Segments that change their size all the time leave no memory behind.
  State state = stream->InitialState();
  long kilobytes = 0;
  for (int turn = 0; turn < 4000; ++turn) {
    if (turn == 1000) kilobytes = ResidentKilobytes();
    Status status = stream->Step(Part(0, 0, 1 + turn % 7), &state, &answer);
    if (!status.ok()) Show("turn", status);
  }
  std::printf("resident %ld\n", kilobytes);
  std::printf("grown %ld\n", ResidentKilobytes() - kilobytes);
  return 0;
}
