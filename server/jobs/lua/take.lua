-- KEYS the model's queues. Arguments: worker, aging_ms (of waiting that count as one level), dead (index of the queue, entry
-- and stamp of each entry whose holder is dead, as this worker has observed it).
-- First what other workers handed back or let go of, then the next waiting job.
-- Returns {entry, job id, index of its queue}, or {'', cursors...} to wait behind for a new entry.
local cursors = {}
for index, queue in ipairs(KEYS) do
  cursors[index] = last_delivered(queue)
  if not cursors[index] then
    return redis.error_reply('NOGROUP ' .. queue)
  end
end

local function take_over(index, entry)
  local item = redis.call('XCLAIM', KEYS[index], GROUP, args.worker, 0, entry)[1]
  return item and item[2] and {item[1], item[2][2], index}
end

for index, queue in ipairs(KEYS) do
  local free = redis.call('XPENDING', queue, GROUP, '-', '+', 1, RELEASED)[1]
  local taken = free and take_over(index, free[1])
  for _, dead in ipairs(args.dead) do
    if not taken and dead.index == index then
      -- It may have been renewed or taken since it was observed.
      local held = redis.call('XPENDING', queue, GROUP, dead.entry, dead.entry, 1)[1]
      taken = held and held[2] .. ' ' .. held[4] == dead.stamp and take_over(index, held[1])
    end
  end
  if taken then
    return taken
  end
end
local best, best_level, best_entry
for index, queue in ipairs(KEYS) do
  local head = redis.call('XRANGE', queue, '(' .. cursors[index], '+', 'COUNT', 1)[1]
  if head then
    local height = level(index, head[1], args.aging_ms)
    if not best or height < best_level or (height == best_level and is_before(head[1], best_entry)) then
      best, best_level, best_entry = index, height, head[1]
    end
  end
end
if not best then
  return {'', unpack(cursors)}
end
local item = redis.call('XREADGROUP', 'GROUP', GROUP, args.worker, 'COUNT', 1, 'STREAMS', KEYS[best], '>')[1][2][1]
return {item[1], item[2][2], best}
