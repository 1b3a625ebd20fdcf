import COpenBLAS
import Dispatch
import Synchronization

/// How many threads the process may use: the processors it is allowed to run on.
package let availableThreads = max(1, Int(openblas_get_num_procs()))

/// Calls `body` for ranges that together cover `0..<count`, on all threads at once.
///
/// Ranges have `grain` elements, the last one perhaps fewer, and are handed out in order; one range runs on one thread.
/// At most `threads` are used. `body` must be safe to run concurrently on different ranges. Calls may be nested. If `body`
/// throws, ranges that have not begun are left out and the error of the first failing range is thrown, whatever the
/// number of threads.
package func parallelFor<Failure: Error>(
  _ count: Int, grain: Int = 1, threads: Int = availableThreads, _ body: (Range<Int>) throws(Failure) -> Void
) throws(Failure) {
  precondition(count >= 0 && grain > 0 && threads > 0, "a loop has a count, a grain and threads")
  let chunks = (count + grain - 1) / grain
  let workers = min(threads, chunks)
  if workers <= 1 {
    for chunk in 0..<chunks { try body(chunk * grain..<min((chunk + 1) * grain, count)) }
    return
  }
  let next = Atomic<Int>(0)
  let failure = Mutex<(chunk: Int, error: Failure)?>(nil)
  withoutActuallyEscaping(body) { body in
    // The caller vouches for concurrent calls.
    nonisolated(unsafe) let body = body
    DispatchQueue.concurrentPerform(iterations: workers) { _ in
      while true {
        let chunk = next.wrappingAdd(1, ordering: .relaxed).oldValue
        if chunk >= chunks { return }
        do throws(Failure) {
          try body(chunk * grain..<min((chunk + 1) * grain, count))
        } catch {
          failure.withLock { first in
            if chunk < first?.chunk ?? .max { first = (chunk, error) }
          }
          next.store(chunks, ordering: .relaxed)
        }
      }
    }
  }
  if let first = failure.withLock({ $0 }) { throw first.error }
}

/// The results of `body` for `0..<count`, in order, computed on all threads at once.
package func parallelMap<Value, Failure: Error>(
  _ count: Int, threads: Int = availableThreads, _ body: (Int) throws(Failure) -> Value
) throws(Failure) -> [Value] {
  let slots = UnsafeMutablePointer<Value?>.allocate(capacity: count)
  slots.initialize(repeating: nil, count: count)
  defer {
    slots.deinitialize(count: count)
    slots.deallocate()
  }
  try parallelFor(count, threads: threads) { (range) throws(Failure) in
    for index in range { slots[index] = try body(index) }
  }
  return (0..<count).compactMap { slots[$0] }
}
