import Synchronization
import TestSupport
import Tensors
import Testing

@Suite struct ParallelTests {
  @Test(arguments: [0, 1, 2, 7, 100, 1001], [1, 3, 64]) func everyElementOnce(_ count: Int, _ grain: Int) {
    for threads in [1, 2, 16] {
      let hits = Mutex([Int](repeating: 0, count: count))
      parallelFor(count, grain: grain, threads: threads) { range in
        hits.withLock { hits in
          #expect(range.count <= grain && range.lowerBound % grain == 0)
          for index in range { hits[index] += 1 }
        }
      }
      #expect(hits.withLock { $0 } == [Int](repeating: 1, count: count))
    }
  }

  struct Failure: Error, Equatable { var index: Int }

  @Test func theFirstErrorIsThrown() {
    for threads in [1, 4] {
      for _ in 0..<50 {
        #expect(throws: Failure(index: 3)) {
          try parallelFor(100, threads: threads) { range throws(Failure) in
            if range.lowerBound >= 3 { throw Failure(index: range.lowerBound) }
          }
        }
      }
    }
  }

  @Test func nestedLoops() {
    let sum = Atomic<Int>(0)
    parallelFor(8, threads: 8) { outer in
      parallelFor(100, grain: 7, threads: 8) { inner in
        for index in inner { sum.add(index * (outer.lowerBound + 1), ordering: .relaxed) }
      }
    }
    #expect(sum.load(ordering: .relaxed) == 4950 * 36)
  }

  @Test func maps() throws {
    #expect(parallelMap(1000, threads: 4) { $0 * $0 } == (0..<1000).map { $0 * $0 })
    #expect(parallelMap(3, threads: 2) { (index: Int) -> Int? in index == 1 ? nil : index } == [0, nil, 2])
    #expect(throws: Failure(index: 5)) {
      _ = try parallelMap(10) { index throws(Failure) -> Int in
        if index >= 5 { throw Failure(index: index) }
        return index
      }
    }
    #expect(availableThreads >= 1)
  }
}
