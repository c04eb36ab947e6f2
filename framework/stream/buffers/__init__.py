"""The bounded buffer between a receive thread and a training thread: one kind a file.

- fifo: put waits while it is full; get takes the oldest and removes it.
- firo: put waits while it is full; get waits while the size is at or below the watermark, takes
  any and removes it.
- reservoir: what was drawn is seen, and stays until it is overwritten. put waits while every place
  holds an unseen sample, and overwrites any seen one once it is full. get waits until the size was
  first above the watermark and takes any. From then on both also keep within a band: put waits
  while too few were drawn per sample received, get while too many were.

Any: all with the same probability. The end of reception waives what get waits for, and the
reservoir then removes what it draws. Each rule holds sample by sample: get takes a batch once all
its picks are permitted one after another; put places what is permitted, waits, and goes on.

buffer.py has the threads' side (put, get, close), limiter.py says how much each may do now,
order.py which places hold what, storage.py the samples. A kind chooses places and a limiter.
"""
