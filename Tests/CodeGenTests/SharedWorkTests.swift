import CodeGen
import TestSupport
import Testing

/// Units of work that threads take from each other.
@Suite struct SharedWorkTests {
  /// Every unit is done once in every round, whatever the threads, the units and their times.
  @Test(arguments: ["1 0 1", "2 1 300", "2 7 300", "3 64 200", "4 1000 40", "2 1500000 2"])
  func everyUnitIsTakenOnce(_ arguments: String) throws {
    let folder = try TemporaryFolder()
    for file in RuntimeSources.files(of: .network) where file.name.hasSuffix(".h") || Self.files.contains(file.name) {
      try folder.write(file.name, file.text)
    }
    try folder.write("main.c", Self.main)
    let built = try Command.run(
      "clang",
      ["-std=gnu11", "-O2", "-Wall", "-Werror", "-o", folder.path("program"), folder.path("main.c")]
        + Self.files.map { folder.path($0) } + ["-lpthread"])
    try #require(built.exitCode == 0, "\(built.errors)")
    let run = try Command.run(folder.path("program"), arguments.split(separator: " ").map(String.init), timeout: 120)
    #expect(run.exitCode == 0, "\(run.errors)")
    #expect(run.text == "done\n")
  }

  private static let files = ["thread_pool.c", "cpu.c", "failure.c"]

  /// Threads, units, rounds. Rounds follow each other with and without a barrier between, and some units take longer.
  private static let main = """
    #include "thread_pool.h"
    #include <stdio.h>
    #include <stdlib.h>

    void mcc_stopwatch_mark(mcc_stopwatch *stopwatch, int64_t step) { (void)stopwatch, (void)step; }

    static int64_t units, rounds;
    static unsigned char *done;

    static void body(mcc_thread *t, void *argument) {
      (void)argument;
      for (int64_t round = 0; round < rounds; round++) {
        for (mcc_work work = mcc_share(t, units); mcc_next(t, &work);) {
          if (work.unit < 0 || work.unit >= units) abort();
          __atomic_fetch_add(&done[work.unit + (round & 1) * units], 1, __ATOMIC_RELAXED);
          if ((work.unit + round) % 7 == 0) for (volatile int i = 0; i < 300; i++) {}
        }
        if (round % 3 != 0) continue;
        mcc_barrier_ahead(t, done, units, 1);
      }
    }

    int main(int argc, char **argv) {
      if (argc != 4) return 2;
      int threads = atoi(argv[1]);
      units = atoll(argv[2]);
      rounds = atoll(argv[3]);
      done = calloc(2 * (size_t)units + 1, 1);
      mcc_pool *pool = mcc_pool_create(threads);
      for (int job = 0; job < 3; job++) mcc_pool_run(pool, body, NULL);
      mcc_pool_destroy(pool);
      for (int64_t unit = 0; unit < 2 * units; unit++) {
        int64_t wanted = 3 * (rounds / 2 + (unit < units ? rounds % 2 : 0));
        if (done[unit] != (wanted & 255)) {
          fprintf(stderr, "unit %lld: %d times, expected %lld\\n", (long long)unit, done[unit], (long long)wanted & 255);
          return 1;
        }
      }
      puts("done");
      return 0;
    }

    """
}
