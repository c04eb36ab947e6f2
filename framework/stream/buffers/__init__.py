"""The bounded buffer between a receive thread and a training thread: one file per kind.

- fifo: put waits while the buffer is full; get takes the oldest samples and removes them.
- firo: put waits while the buffer is full; get waits while the size is at or below the watermark,
  takes any samples and removes them.
- reservoir: a sample that was drawn is seen, and stays until it is overwritten. put waits while
  every place holds an unseen sample, and overwrites any seen one once the buffer is full. get waits
  until the size was first above the watermark and takes any samples. From then on both also keep
  within a band: put waits while too few were drawn per sample received, get while too many were.

"Any" means with equal probability. Once reception is over, get no longer waits, and the reservoir
removes what it draws. Each rule holds sample by sample: get takes a batch once all its picks are
permitted one after another; put places what is permitted, waits, and goes on.

buffer.py has put, get and close, for the threads; limiter.py says how many samples each may move
now; order.py knows which places hold what; storage.py holds the samples. A kind chooses places and
a limiter.
"""
