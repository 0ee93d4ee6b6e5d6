// The hash of what a model gives for inputs that repeat (five runs where it has a state): what tests/same_bits.sh
// compares between targets that the program heed is not built for.
//
//     heed_hash MODEL.heed... [--isa ISA]
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <vector>

#include "heed/session.h"
#include "heed/sha256.h"

namespace {

struct alignas(64) Line {
  std::byte bytes[64];
};

void require(const heed::Status& status) {
  if (status.ok()) return;
  char text[256];
  status.describe(text, sizeof text);
  std::fprintf(stderr, "%s\n", text);
  std::exit(1);
}

heed::Isa isa_named(std::string_view name) {
  for (int i = 0; i < heed::isa_count; ++i)
    if (name == heed::name(heed::Isa(i))) return heed::Isa(i);
  std::fprintf(stderr, "%s: no such instruction set\n", name.data());
  std::exit(2);
}

size_t byte_count(const heed::Tensor& tensor) {
  return static_cast<size_t>(element_count(*tensor.shape)) * heed::size_of(tensor.shape->type);
}

/// Reals in [-1, 1), indices inside their table, other whole numbers and booleans 0 or 1.
void fill(const heed::Session& session, uint32_t& state) {
  const heed::Model& model = session.model();
  for (uint32_t i = 0; i < model.input_count(); ++i) {
    const heed::Tensor to = session.input(i);
    int64_t bound = 2;
    for (uint32_t k = 0; k < model.index_check_count(); ++k)
      if (model.index_check(k).input == i) bound = session.value(model.index_check(k).bound);
    for (int64_t k = 0; k < element_count(*to.shape); ++k) {
      state = state * 1664525u + 1013904223u;
      const uint32_t bits = state >> 8;
      if (to.shape->type == heed::Type::f32)
        to.as<float>()[k] = static_cast<float>(bits) * 0x1p-23f - 1;
      else if (to.shape->type == heed::Type::i32)
        to.as<int32_t>()[k] = static_cast<int32_t>(bits % bound);
      else
        to.as<uint8_t>()[k] = bits >> 12 & 1;
    }
  }
}

int hash_all(int count, char** paths, heed::Isa isa) {
  for (int i = 0; i < count; ++i) {
    std::ifstream stream(paths[i], std::ios::binary | std::ios::ate);
    if (!stream) return std::fprintf(stderr, "%s cannot be read\n", paths[i]), 1;
    const auto size = static_cast<size_t>(stream.tellg());
    std::vector<Line> file(size / 64 + 1);
    stream.seekg(0).read(reinterpret_cast<char*>(file.data()), static_cast<std::streamsize>(size));

    const auto model = heed::Model::load({file[0].bytes, size});
    require(model.status());
    std::vector<Line> arena(model->memory().total() / 64 + 1);
    auto session = heed::Session::create(*model, {arena[0].bytes, arena.size() * 64}, {.isa = isa});
    require(session.status());
    heed::Sha256 hash;
    uint32_t state = 1;
    for (int run = 0; run < (model->state_count() > 0 ? 5 : 1); ++run) {
      fill(*session, state);
      require(session->run());
      for (uint32_t k = 0; k < model->output_count(); ++k) {
        const heed::Tensor output = session->output(k);
        hash.update({output.data, byte_count(output)});
      }
    }
    const std::string_view path(paths[i]);
    std::printf("hash: %s  %s\n", hash.finish().hex().text, path.substr(path.rfind('/') + 1).data());
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  int count = argc - 1;
  heed::Isa isa = heed::best_isa();
  if (count > 2 && argv[argc - 2] == std::string_view("--isa")) {
    isa = isa_named(argv[argc - 1]);
    count -= 2;
  }
  if (count < 1) return std::fprintf(stderr, "usage: heed_hash MODEL.heed... [--isa ISA]\n"), 2;
  return hash_all(count, argv + 1, isa);
}
