#include <heed/model.h>
#include <heed/session.h>
#include <heed/sha256.h>
#include <heed/threads.h>

extern "C" int refused_in_c(const void* bytes, size_t size);

int main() {
  alignas(64) static const std::byte bytes[128]{};
  heed::Threads pool(2);
  heed::Sha256 hash;
  hash.update(bytes);
  const bool refused = heed::Model::load(bytes).status().code == heed::Code::not_a_model;
  return refused && refused_in_c(bytes, sizeof bytes) && pool.parallel().threads == 2 && hash.finish().bytes[0] != 0
             ? 0
             : 1;
}
